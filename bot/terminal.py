"""What kind of terminal this is, and how it behaves while an answer is being made."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

_usual: list[list[Any]] = []  # what no_echo found


def is_terminal(stream: TextIO | None) -> bool:
    """False too when there is no such stream, or it is closed."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:
        return False


def is_dumb() -> bool:
    """A terminal that cannot move its cursor (Emacs' shell, some CI consoles)."""
    return os.environ.get("TERM", "").lower() in ("dumb", "unknown")


def can_edit() -> bool:
    """Whether a line editor may take the terminal over."""
    return is_terminal(sys.stdin) and is_terminal(sys.stdout) and not is_dumb()


def force_utf8() -> None:
    """Read and write UTF-8 whatever the locale says; bytes that are not become U+FFFD or '?'."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(encoding="utf-8", errors="replace")


@contextmanager
def no_echo() -> Iterator[None]:
    """Keep keys typed during an answer out of it and as they are; the next prompt gets them.

    Ctrl-C still interrupts. Everything else waits: Enter stays a carriage return, which the line
    editor tells from Ctrl-J, and Ctrl-D is not taken for an end of input that nobody reads.
    """
    try:
        import termios
    except ImportError:  # Windows
        yield
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    quiet = [*before]
    quiet[0] &= ~termios.ICRNL
    quiet[3] &= ~(termios.ECHO | termios.ICANON)
    termios.tcsetattr(descriptor, termios.TCSANOW, quiet)
    _usual.append(before)
    try:
        yield
    finally:
        _usual.pop()
        termios.tcsetattr(descriptor, termios.TCSANOW, before)


@contextmanager
def lent() -> Iterator[None]:
    """Inside the block another program has the terminal, as it was before no_echo."""
    if not _usual:
        yield
        return
    import termios

    descriptor = sys.stdin.fileno()
    quiet = termios.tcgetattr(descriptor)
    termios.tcsetattr(descriptor, termios.TCSANOW, _usual[-1])
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSANOW, quiet)


def well_formed(text: str) -> str:
    """`text` without lone surrogates, which is how Python carries bytes that are not UTF-8."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
