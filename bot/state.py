"""What the shell holds and a command may read and change."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bot import citations, render, sessions, terminal
from bot.adapters import use_adapter, wanted_adapter
from bot.answering import ending, say_found, show_turn, stats
from bot.chat import Chat
from bot.config import Config
from bot.followup import search_query
from bot.idle import IdleTrial
from bot.interrupts import Interrupts
from bot.knowledge import Knowledge, wanted_base
from bot.loading import LoadedModel, ModelLoader, checkpoint_settings
from bot.prompt import Exchange
from bot.saved_kv import SavedKV
from bot.settings import Settings
from bot.sparsity import run_with_progress, use_level
from bot.turn import Turn
from engine.sparsity.knob import AUTO

if TYPE_CHECKING:
    from bot.evidence import Evidence
    from engine import Model, Usage
    from engine.sparsity.knob import Level


@dataclass
class ShellState:
    """The conversation, the settings, the model and the knowledge, and how they keep in step."""

    config: Config
    chat: Chat
    loader: ModelLoader
    interrupts: Interrupts
    saved_as: str | None = None  # the session's name, once it has one
    shows_stats: bool = True
    usages: list[Usage] = field(default_factory=list)
    levels: list[Level] = field(default_factory=list)  # of sparsity, one for each usage
    last_turn: Turn | None = None
    tried_level: Level | None = None  # what the model in use was last asked for; None: ask anew
    tried_adapter: str | None = None  # the same; None = none
    adapter_refused: str = ""  # why it is not in use
    fixed: tuple[str, str] | None = None  # what /fix made of the last answer, and that answer
    tries_levels: bool = False  # while nobody asks
    trial: IdleTrial | None = None
    saved_kv: SavedKV = field(init=False)
    knowledge: Knowledge = field(init=False)

    def __post_init__(self) -> None:
        self.saved_kv = SavedKV(self.loader.worker)
        self.knowledge = Knowledge(self.interrupts)
        self.knowledge.use(wanted_base(self.chat.settings))

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
        self.knowledge.use(wanted_base(self.chat.settings))
        model, threads = self.chat.model, self.chat.settings.threads
        if model is not None:  # after what the worker has to do with it now
            self.loader.worker.submit(lambda: model.set_threads(threads))
            steps = self._use_level, self._use_adapter
            # a share of the feed-forward and an adapter exclude each other: what goes goes first
            for step in steps if wanted_adapter(self.chat.settings) else reversed(steps):
                step(model)

    def change_adapter(self, wanted: str | None) -> None:
        """Let the model in use have it from now on; ValueError (the one in use stays) when it
        cannot."""
        model, before = self.chat.model, self.tried_adapter
        assert model is not None
        refused = self.loader.worker.submit(lambda: use_adapter(model, wanted)).result()
        if refused:
            self.loader.worker.submit(lambda: use_adapter(model, before)).result()
            raise ValueError(refused)
        self.tried_adapter, self.adapter_refused = wanted, ""

    def _use_adapter(self, model: Model) -> None:
        """Let the model have the adapter that is set; one that arrives later brings its own."""
        wanted = wanted_adapter(self.chat.settings)
        if wanted == self.tried_adapter or self.loader.loading is not None:
            return
        refused = self.loader.worker.submit(lambda: use_adapter(model, wanted)).result()
        self._say_adapter(wanted, refused)

    def _say_adapter(self, wanted: str | None, refused: str) -> None:
        self.tried_adapter, self.adapter_refused = wanted, refused
        if refused:
            render.note(f"no adapter is in use: {refused}")

    def _use_level(self, model: Model) -> None:
        """Let the model have the level that is set; a model that arrives later brings its own."""
        level = self.chat.settings.sparsity
        if level == self.tried_level or self.loader.loading is not None:
            return
        self.tried_level = level
        if line := run_with_progress(
            self.loader.worker, self.interrupts, lambda report: use_level(model, level, report)
        ):
            render.note(line)
        self._try_levels(model)

    def _try_levels(self, model: Model) -> None:
        """Let the engine find out what "auto" means for the model, where that is asked for."""
        if self.trial is not None:
            self.trial.stop()
            self.trial = None
        is_open = self.tried_level == AUTO and model.sparsity.level == "off"
        if self.tries_levels and is_open and model.adapter is None:
            self.trial = IdleTrial(self.loader.worker, model)
            self.trial.start()

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
            loaded = self.loader.wait(self.interrupts, status.show)
        finally:
            status.clear()
        if loaded.model is not self.chat.model:
            self._adopt(loaded)
        return loaded

    def ask(self, question: str) -> None:
        """Look for evidence, ask, and show the answer with its sources."""
        settings, history = self.chat.settings, self.chat.exchanges
        evidence = self.evidence(question, history, settings)
        if self._may_answer(evidence, settings):
            holds = settings.require_evidence
            self.answer(lambda: self.chat.turn(question, evidence), holds)

    def retry(self, settings: Settings) -> None:
        """Ask the last question again, looking for evidence again: what to search may differ."""
        question, history = self.chat.last("retry").question, self.chat.exchanges[:-1]
        evidence = self.evidence(question, history, settings)
        if self._may_answer(evidence, settings):
            self.answer(lambda: self.chat.retry(settings, evidence), settings.require_evidence)

    def evidence(
        self, question: str, history: Sequence[Exchange], settings: Settings
    ) -> Evidence | None:
        """What the knowledge base in use has for a question after `history`; None without one."""
        if self.knowledge.name is None:
            return None
        return self.knowledge.evidence(search_query(question, history), settings)

    def answer(self, make_turn: Callable[[], Turn], holds: bool = False) -> None:
        """Run one turn and show it, with what there is to say about it.

        holds  show the answer only when it is whole and draws on its evidence; otherwise take it
               back
        """
        self.need_model()
        writer = None if holds else render.AnswerWriter(self.chat.settings.stream)
        before = list(self.chat.exchanges)
        with self.knowledge.resting():
            turn = show_turn(
                self.loader.worker, lambda: self._restored(make_turn()), self.interrupts, writer
            )
        assert turn.usage is not None
        is_shown = not holds or self._show_held(turn)
        if not is_shown:
            self.chat.exchanges[:] = before
        elif turn.is_kept and turn.text and (known := self.chat.exchanges[-1].evidence):
            say_found(known)
        self.usages.append(turn.usage)
        self.levels.append(turn.model.sparsity.level)
        self.last_turn = turn
        if self.saved_kv.is_worth_keeping(turn.usage.prompt_tokens - turn.usage.cached_tokens):
            self.keep_kv()
        if is_shown and (line := ending(turn)):
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

    def _may_answer(self, evidence: Evidence | None, settings: Settings) -> bool:
        """False, after one line, when an answer would stand on nothing and that is not allowed."""
        if evidence is None:
            if settings.require_evidence:
                raise ValueError(
                    "require_evidence is on and no knowledge base is in use; /kb NAME uses one, "
                    "/set require_evidence=off answers without"
                )
            return True
        if evidence.sources or not (evidence.query or settings.require_evidence):
            return True
        end = "not answered: require_evidence is on" if settings.require_evidence else "answered"
        without = "" if settings.require_evidence else " without it"
        render.note(f"nothing found in {evidence.base}{_because(evidence)}; {end}{without}")
        return not settings.require_evidence

    def _show_held(self, turn: Turn) -> bool:
        """Show an answer that was kept back, if it draws on its evidence."""
        known = self.chat.exchanges[-1].evidence
        if known is not None and citations.is_ungrounded(known):
            render.note(
                "the answer drew on none of the passages, so it is not shown: require_evidence is "
                "on (/why shows them)"
            )
            return False
        writer = render.AnswerWriter(streaming=False)
        writer.write(turn.text)
        writer.close()
        return True

    def _adopt(self, loaded: LoadedModel) -> None:
        self.chat.use_model(loaded.model)
        self.config.layers["checkpoint"] = checkpoint_settings(loaded.model)
        self.tried_level = loaded.level
        self._say_adapter(loaded.adapter, loaded.refused)
        for line in loaded.news:
            render.note(line)
        self.apply_settings()
        self._try_levels(loaded.model)


def _way_out(turn: Turn) -> str:
    """The command that suits an answer that was cut or is empty."""
    if turn.finish_reason == "stop_string" or not turn.is_kept:
        return ""
    return "; /continue goes on" if turn.text else "; /retry asks again"


def _because(evidence: Evidence) -> str:
    """Why a search was less than it could be, for a line that says that it found nothing."""
    return f" ({evidence.mode}: {evidence.why})" if evidence.why else ""
