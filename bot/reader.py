"""Where lines come from: a line editor on a terminal, plain lines everywhere else."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from prompt_toolkit import PromptSession
from prompt_toolkit.application import run_in_terminal
from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition
from prompt_toolkit.history import History
from prompt_toolkit.input import Input
from prompt_toolkit.output import Output

from bot import render, terminal
from bot.interrupts import Interrupts
from bot.keys import key_bindings

PROMPT = ">>> "
CONTINUATION = "... "
Complete = Callable[[str], Iterable[tuple[str, int, str]]]


class Reader(Protocol):
    """One message at a time.

    EOFError at the end of input; KeyboardInterrupt when Ctrl-C was pressed on an empty line,
    LineCleared when it threw a line away.
    """

    is_interactive: bool  # whether somebody may press keys

    def read(self) -> str: ...

    def interject(self, show: Callable[[], None]) -> None:
        """Call `show`, which prints, without harm to a line being typed; from any thread."""


class LineCleared(KeyboardInterrupt):
    """Ctrl-C threw away what had been typed."""


class TerminalReader:
    """prompt_toolkit: editing, history, completion, several lines."""

    is_interactive = True

    def __init__(
        self,
        complete: Complete,
        history: History,
        input: Input | None = None,
        output: Output | None = None,
    ) -> None:
        is_command = Condition(lambda: self._session.default_buffer.text.lstrip().startswith("/"))
        self._session: PromptSession[str] = PromptSession(
            PROMPT,
            multiline=True,  # Enter still sends: see bot/keys.py
            prompt_continuation=CONTINUATION,
            history=history,
            auto_suggest=AutoSuggestFromHistory(),
            completer=CommandCompleter(complete),
            complete_while_typing=is_command,
            key_bindings=key_bindings(),
            enable_open_in_editor=True,
            enable_suspend=True,
            tempfile_suffix=".md",
            input=input,
            output=output,
        )

    def read(self) -> str:
        """See Reader."""
        try:
            text = self._session.prompt()
        except KeyboardInterrupt:
            if self._session.default_buffer.text:
                raise LineCleared from None
            raise
        return terminal.well_formed(text)

    def interject(self, show: Callable[[], None]) -> None:
        """Print above the prompt when one is open; otherwise leave it to the caller's next turn."""
        app = self._session.app
        loop = app.loop
        if loop is not None and app.is_running:
            loop.call_soon_threadsafe(lambda: run_in_terminal(show), context=app.context)


class PlainReader:
    """Lines from a pipe, a file or a terminal that cannot edit; each line is one message."""

    def __init__(self, interrupts: Interrupts) -> None:
        self._interrupts = interrupts
        self.is_interactive = terminal.is_terminal(sys.stdin)

    def read(self) -> str:
        """See Reader."""
        if sys.stdin is None:
            raise EOFError
        if self.is_interactive:
            render.ask_for_line(PROMPT)
        try:
            with self._interrupts.raising():
                line = sys.stdin.readline()
        except KeyboardInterrupt:
            self._end_line()
            raise
        if not line:
            self._end_line()
            raise EOFError
        return terminal.well_formed(line.rstrip("\r\n"))

    def _end_line(self) -> None:
        """Below the prompt, where the terminal shows ^C or nothing at all."""
        if self.is_interactive:
            render.ask_for_line("\n")

    def interject(self, show: Callable[[], None]) -> None:
        """Nothing: there is no way to print beside a line that is being typed."""


class CommandCompleter(Completer):
    """Completion for lines that begin with a slash."""

    def __init__(self, complete: Complete) -> None:
        self._complete = complete

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Any:
        """Candidates; none when looking for them fails, for typing must go on."""
        try:
            found = list(self._complete(document.text_before_cursor))
        except Exception:
            return
        for candidate, length, remark in found:
            yield Completion(candidate, start_position=-length, display_meta=remark)
