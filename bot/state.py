"""What the shell holds and a command may read and change."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bot import render, terminal
from bot.answering import ending, show_turn, stats
from bot.chat import Chat, Turn
from bot.config import Config
from bot.interrupts import Interrupts
from bot.loading import LoadedModel, ModelLoader, checkpoint_settings

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
        turn = show_turn(self.loader.worker, make_turn, self.interrupts, writer)
        assert turn.usage is not None
        self.usages.append(turn.usage)
        if line := ending(turn):
            render.note(line + _way_out(turn))
        if self.shows_stats:
            render.note(stats(turn.usage))

    def _adopt(self, loaded: LoadedModel) -> None:
        self.chat.use_model(loaded.model)
        self.config.layers["checkpoint"] = checkpoint_settings(loaded.model)
        self.apply_settings()


def _way_out(turn: Turn) -> str:
    """The command that suits an answer that was cut or is empty."""
    if turn.finish_reason == "stop_string" or not turn.is_kept:
        return ""
    return "; /continue goes on" if turn.text else "; /retry asks again"
