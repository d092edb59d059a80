"""What the shell holds and a command may read and change."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bot import render, sessions, terminal
from bot.answering import ending, show_turn, stats
from bot.chat import Chat, Turn
from bot.config import Config
from bot.interrupts import Interrupts
from bot.loading import LoadedModel, ModelLoader, checkpoint_settings
from bot.saved_kv import SavedKV

if TYPE_CHECKING:
    from engine import Usage


@dataclass
class ShellState:
    """The conversation, the settings and the model, and how they are kept in step."""

    config: Config
    chat: Chat
    loader: ModelLoader
    interrupts: Interrupts
    saved_as: str | None = None  # the session's name, once it has one
    shows_stats: bool = True
    usages: list[Usage] = field(default_factory=list)
    saved_kv: SavedKV = field(init=False)

    def __post_init__(self) -> None:
        self.saved_kv = SavedKV(self.loader.worker)

    @property
    def has_no_model(self) -> bool:
        """Nothing is in use and nothing is on its way."""
        return self.loader.current is None and self.loader.loading is None

    @property
    def was_cancelled(self) -> bool:
        """Whether the last answer was stopped."""
        return bool(self.usages) and self.usages[-1].finish_reason == "cancelled"

    def apply_settings(self) -> None:
        """Let the next turn see what /set and friends changed."""
        self.chat.settings = self.config.settings()
        model, threads = self.chat.model, self.chat.settings.threads
        if model is not None:  # after what the worker has to do with it now
            self.loader.worker.submit(lambda: model.set_threads(threads))

    def settle(self) -> LoadedModel | None:
        """Take over a model that has arrived; raises its failure, once."""
        loaded = self.loader.settle()
        if loaded is not None and loaded.model is not self.chat.model:
            self._adopt(loaded)
        return loaded

    def need_model(self) -> LoadedModel:
        """Wait for the model behind the prompt, telling what it is busy with."""
        status = render.Status(lines=terminal.is_terminal(sys.stdin))
        try:
            loaded = self.loader.wait(self.interrupts, lambda stage: status.show(f"{stage} …"))
        finally:
            status.clear()
        if loaded.model is not self.chat.model:
            self._adopt(loaded)
        return loaded

    def answer(self, make_turn: Callable[[], Turn]) -> None:
        """Run one turn and show it, with what there is to say about it."""
        self.need_model()
        writer = render.AnswerWriter(self.chat.settings.stream)
        turn = show_turn(
            self.loader.worker, lambda: self._restored(make_turn()), self.interrupts, writer
        )
        assert turn.usage is not None
        self.usages.append(turn.usage)
        if self.saved_kv.is_worth_keeping(turn.usage.prompt_tokens - turn.usage.cached_tokens):
            self.keep_kv()
        if line := ending(turn):
            render.note(line + _way_out(turn))
        if self.shows_stats:
            render.note(stats(turn.usage))

    def keep_kv(self) -> None:
        """Keep what the model's cache holds of the session in use, as its file tells it."""
        if self.saved_as is None:
            return
        try:
            saved = sessions.load(self.saved_as).exchanges
        except (OSError, ValueError):
            saved = []
        if self.chat.model is None or not saved:
            self.saved_kv.remove(self.saved_as)
            return
        settings = self.chat.settings
        self.saved_kv.keep(
            self.saved_as, self.chat.model, self.chat.ids_of(saved), settings.saved_kv_mb
        )

    def _restored(self, turn: Turn) -> Turn:
        """The turn, after its session's cache was read from the disk where that spares work."""
        if self.saved_as is not None and self.chat.settings.saved_kv_mb:
            started = time.perf_counter()
            turn.n_restored = self.saved_kv.restore(self.saved_as, turn.model, turn.ids)
            turn.restore_s = time.perf_counter() - started
        return turn

    def _adopt(self, loaded: LoadedModel) -> None:
        self.chat.use_model(loaded.model)
        self.config.layers["checkpoint"] = checkpoint_settings(loaded.model)
        self.apply_settings()


def _way_out(turn: Turn) -> str:
    """The command that suits an answer that was cut or is empty."""
    if turn.finish_reason == "stop_string" or not turn.is_kept:
        return ""
    return "; /continue goes on" if turn.text else "; /retry asks again"
