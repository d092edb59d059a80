"""The shell: read a line, do what it says, read the next.

A failure of one line is one line on stderr; the conversation and the model stay.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future

from bot import commands, render
from bot.failures import explain
from bot.loading import Interrupted, LoadedModel
from bot.reader import LineCleared, Reader
from bot.state import ShellState

TWICE_S = 2.0  # two presses of Ctrl-C within this leave


class Shell:
    """Reads until the end of input, /quit, or Ctrl-C twice."""

    def __init__(
        self,
        state: ShellState,
        reader: Reader,
        log_hint: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._state = state
        self._reader = reader
        self._log_hint = log_hint
        self._clock = clock
        self._pressed_at = float("-inf")

    def run(self) -> int:
        """The exit code. Without anybody at the keys, Ctrl-C and a model that cannot be loaded end
        it at once: KeyboardInterrupt, or the model's error.
        """
        loading = self._state.loader.loading
        if loading is not None:
            loading.future.add_done_callback(self._loading_ended)
        self._state.knowledge.on_news = lambda: self._reader.interject(self._tell_news)
        self._begin_knowledge()
        while True:
            self._settle()
            try:
                line = self._reader.read()
            except EOFError:
                return 0
            except KeyboardInterrupt as press:
                if self._leaves(press):
                    return 0
                continue
            try:
                self._settle()
                self._handle(line)
            except commands.Leave:
                return 0

    def _handle(self, line: str) -> None:
        try:
            self._obey(line)
        except Interrupted as stop:
            render.note(str(stop))
            self._stop_if_alone()
        except (commands.Leave, BrokenPipeError):
            raise
        except Exception as error:
            if not self._reader.is_interactive and self._state.has_no_model:
                raise
            render.complain(explain(error, self._log_hint))
        else:
            if self._state.was_cancelled:
                self._stop_if_alone()

    def _obey(self, line: str) -> None:
        """A command is run, text is asked, an empty line does nothing."""
        if (parts := commands.split(line)) is not None:
            word, argument = parts
            commands.find(word).run(self._state, argument)
        elif line.strip():
            self._state.ask(commands.text_of(line))

    def _loading_ended(self, future: Future[LoadedModel]) -> None:
        """On the worker thread: a failure is told at once, a success when it matters."""
        if future.exception() is not None or self._state.tries_levels:
            self._reader.interject(self._settle)

    def _begin_knowledge(self) -> None:
        """Get the knowledge base ready behind the first prompt."""
        try:
            self._state.knowledge.begin()
        except Exception as error:
            if not self._reader.is_interactive:
                raise
            render.complain(explain(error, self._log_hint))

    def _tell_news(self) -> None:
        for line in self._state.knowledge.news():
            render.note(line)

    def _settle(self) -> None:
        """Take over a model that has arrived, or say why it did not; tell what else is new."""
        self._tell_news()
        try:
            self._state.settle()
        except Exception as error:
            if not self._reader.is_interactive:
                raise
            render.complain(f"{explain(error, self._log_hint)}; /model NAME loads another")

    def _leaves(self, press: KeyboardInterrupt) -> bool:
        """Whether this Ctrl-C at the prompt is the second of two."""
        self._stop_if_alone()
        now, before = self._clock(), self._pressed_at
        self._pressed_at = now
        if isinstance(press, LineCleared):
            return False
        if now - before <= TWICE_S:
            return True
        render.note("Ctrl-C again, or Ctrl-D, leaves")
        return False

    def _stop_if_alone(self) -> None:
        """Nobody can be asked what Ctrl-C meant: it ends a run without a terminal."""
        if not self._reader.is_interactive:
            raise KeyboardInterrupt
