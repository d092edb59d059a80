"""The slash commands: one table, from which /help, completion and dispatch read.

A command is a decorated function: its docstring is its help, its first line the summary. The
commands of each subject stand in `commands_<subject>.py`; those that concern the shell itself here.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path

from bot import render
from bot.state import ShellState

Run = Callable[[ShellState, str], None]
Completer = Callable[[ShellState, str], Iterable[str]]  # candidates for the argument's last word


class Leave(Exception):
    """The shell is to end."""


@dataclass(frozen=True, slots=True)
class Command:
    """One row of the table; names without the slash."""

    name: str
    aliases: tuple[str, ...]
    usage: str
    example: str
    run: Run
    completer: Completer | None

    @property
    def help(self) -> str:
        """The whole docstring."""
        return inspect.cleandoc(self.run.__doc__ or "")

    @property
    def summary(self) -> str:
        """The docstring's first line."""
        return self.help.partition("\n")[0]


_TABLE: dict[str, Command] = {}


def command(
    name: str,
    *aliases: str,
    usage: str = "",
    example: str = "",
    completer: Completer | None = None,
) -> Callable[[Run], Run]:
    """Enter the function that follows into the table."""

    def enter(run: Run) -> Run:
        _TABLE[name] = Command(name, aliases, usage, example or f"/{name}", run, completer)
        return run

    return enter


@cache
def table() -> dict[str, Command]:
    """All commands by name, alphabetically."""
    for path in sorted(Path(__file__).parent.glob("commands_*.py")):
        import_module(f"bot.{path.stem}")
    return dict(sorted(_TABLE.items()))


def find(word: str) -> Command:
    """The command called `word`, by name, alias or unique beginning, in any case.

    ValueError with the candidates or the nearest name.
    """
    spelled = word.lower().replace("-", "_")
    names = _names()
    if spelled in names:
        return names[spelled]
    found = {names[name].name for name in names if spelled and name.startswith(spelled)}
    if len(found) == 1:
        return table()[found.pop()]
    if found:
        listed = ", ".join(f"/{name}" for name in sorted(found))
        raise ValueError(f"/{word} could be {listed}")
    raise ValueError(_unknown(word, list(names)))


def split(line: str) -> tuple[str, str] | None:
    """("word", "argument") when the line is a command; None when it is text for the model.

    Blanks before the slash change nothing: nobody sees them. `//` begins text.
    """
    line = line.lstrip()
    if not line.startswith("/") or line.startswith("//"):
        return None
    word = line[1:].partition("\n")[0].partition(" ")[0]
    return word, line[1 + len(word) :].strip()


def text_of(line: str) -> str:
    """What the model gets of a line that is not a command: `//` at its beginning is one slash."""
    return line.lstrip()[1:] if line.lstrip().startswith("//") else line


def complete(state: ShellState, text: str) -> Iterable[tuple[str, int, str]]:
    """(candidate, length of the text it replaces, remark) for a line that ends at the cursor."""
    parts = split(text)
    if parts is None or "\n" in text:
        return
    word, argument = parts
    if not text.lstrip()[1 + len(word) :]:
        for name, entry in sorted(_names().items()):
            if name.startswith(word.lower().replace("-", "_")):
                yield f"/{name}", len(word) + 1, entry.summary
        return
    chosen = _names().get(word.lower().replace("-", "_"))
    if chosen is None or chosen.completer is None:
        return
    last = "" if text.endswith(" ") else argument.rpartition(" ")[2]
    for candidate in chosen.completer(state, argument):
        if candidate.startswith(last):
            yield candidate, len(last), ""


@cache
def _names() -> dict[str, Command]:
    return {name: entry for entry in table().values() for name in (entry.name, *entry.aliases)}


def _unknown(word: str, names: list[str]) -> str:
    if not word:
        return "a command is missing after the slash; /help lists them"
    close = difflib.get_close_matches(word.lower(), names, n=1)
    shown = word if len(word) <= 40 else word[:39] + "…"
    if close:
        return f"there is no /{shown}; did you mean /{close[0]}? (//{shown} is sent as text)"
    return f"there is no /{shown}; /help lists the commands, //{shown} is sent as text"


@command(
    "help",
    "?",
    usage="[COMMAND]",
    example="/help set",
    completer=lambda state, argument: sorted(_names()),
)
def help_(state: ShellState, argument: str) -> None:
    """List the commands, or explain one.

    Beginnings of names are enough where only one command begins so. A line that begins with two
    slashes is sent to the model with one of them.
    """
    if argument:
        entry = find(argument.removeprefix("/"))
        render.out(f"/{entry.name} {entry.usage}".rstrip())
        if entry.aliases:
            render.out("also: " + ", ".join(f"/{alias}" for alias in entry.aliases))
        render.out(entry.help)
        render.out(f"example: {entry.example}")
        return
    rows = [(f"/{entry.name} {entry.usage}".rstrip(), entry.summary) for entry in table().values()]
    width = max(len(usage) for usage, _ in rows)
    for usage, summary in rows:
        render.out(f"{usage:{width}}  {summary}")
    render.out(
        "Alt-Enter, Ctrl-J: new line · Ctrl-C: stop the answer · Ctrl-D: leave · //text: ask /text"
    )


@command("quit", "exit", "bye")
def quit_(state: ShellState, argument: str) -> None:
    """Leave."""
    raise Leave
