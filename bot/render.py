"""The only place that prints.

Answers and what a command was asked for go to stdout, everything else to stderr. Whatever is
printed here may have been written by a model or come out of a file: control characters are shown as
symbols, so that text cannot move the cursor, set the window's title or fill the clipboard.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import TextIO

from bot.terminal import is_dumb, is_terminal

# tabs and line feeds stay; U+2400… are the Unicode pictures of the control characters
_PICTURES = (
    {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\t\n"}
    | {127: "\u2421"}
    # and what makes text read otherwise than it stands: overrides of the writing direction
    | dict.fromkeys([*range(0x80, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)], "\ufffd")
)
_DIM, _GREEN, _NORMAL, _ERASE = "\x1b[2m", "\x1b[32m", "\x1b[0m", "\r\x1b[K"
_plain = False


def use_plain() -> None:
    """No colour and no moving text from here on, whatever the terminal can do."""
    global _plain
    _plain = True


def visible(text: str) -> str:
    """`text` with control characters made visible."""
    return text.replace("\r\n", "\n").translate(_PICTURES)


def counted(n: int, noun: str) -> str:
    """ "1 passage", "2,345 passages"."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def out(text: str = "") -> None:
    """One or more lines on stdout."""
    _write(sys.stdout, visible(text) + "\n")


def err(text: str) -> None:
    """One or more lines on stderr."""
    _write(sys.stderr, visible(text) + "\n")


def complain(error: BaseException | str) -> None:
    """An expected error in one line on stderr."""
    line = " ".join(str(error).split()) or type(error).__name__
    err(f"sparsechat: {line}")


def urgent(text: str) -> None:
    """A line on stderr out of a signal handler, which may interrupt this file's other functions:
    a stream that is being written to cannot be entered again."""
    with suppress(OSError):
        os.write(2, f"\n{visible(text)}\n".encode())


def marked(pieces: Iterable[tuple[str, bool]]) -> None:
    """Text of which some pieces (True) are marked, on stdout: green, and in ⟦ ⟧ without colour."""
    before, behind = (_GREEN, _NORMAL) if _has_colour(sys.stdout) else ("⟦", "⟧")
    text = "".join(
        f"{before}{visible(piece)}{behind}" if is_marked else visible(piece)
        for piece, is_marked in pieces
    )
    _write(sys.stdout, text + "\n")


def note(text: str) -> None:
    """A line about the answer, in brackets and dimmed, on stderr."""
    line = f"[{visible(text)}]"
    _write(sys.stderr, f"{_DIM}{line}{_NORMAL}\n" if _has_colour(sys.stderr) else f"{line}\n")


def ask_for_line(text: str) -> None:
    """A prompt without a line editor; kept out of stdout when that is a file."""
    _write(sys.stdout if is_terminal(sys.stdout) else sys.stderr, text)


class Status:
    """One line that is written over, on terminals.

    lines  whether it becomes notes, one below the other, where lines cannot be written over;
           otherwise nothing is shown there
    """

    def __init__(self, lines: bool = False) -> None:
        self._lines = lines
        self._shown = False

    def show(self, text: str) -> None:
        """Replace the line."""
        if _can_move(sys.stderr):
            _write(sys.stderr, _ERASE + visible(text))
            self._shown = True
        elif self._lines:
            note(text)

    def clear(self) -> None:
        """Take the line away."""
        if self._shown:
            _write(sys.stderr, _ERASE)
            self._shown = False


class AnswerWriter:
    """Writes an answer to stdout piece by piece, without blank edges.

    streaming False keeps the pieces until `close`.
    """

    def __init__(self, streaming: bool = True) -> None:
        self._streaming = streaming
        self._held = ""  # white space that is shown once something follows it
        self._began = False

    def write(self, text: str) -> None:
        """Show `text`, apart from white space at the answer's beginning and (so far) its end."""
        text = self._held + text
        body = text.rstrip() if self._streaming else ""
        self._held = text[len(body) :]
        self._show(body)

    def close(self) -> None:
        """Show what was kept and end the line."""
        if not self._streaming:
            self._show(self._held.rstrip())
        self._held = ""
        if self._began:
            _write(sys.stdout, "\n")
        self._began = False

    def _show(self, body: str) -> None:
        if body and not self._began:
            # one blank, which many tokenizers put before a first word; more is indentation
            body = body.lstrip("\n")
            body = body[1:] if body[0] == " " and body[1:2] != " " else body
            self._began = True
        if body:
            _write(sys.stdout, visible(body))


def _write(stream: TextIO | None, text: str) -> None:
    """Both streams share the terminal, so each is flushed before the other can write.

    stderr may be gone (`2>&-`): what was to be said is then lost, as its owner wished. A closed
    stdout raises BrokenPipeError or ValueError.
    """
    if stream is None:
        return
    print(text, end="", file=stream, flush=True)


def _can_move(stream: TextIO | None) -> bool:
    return not _plain and is_terminal(stream) and not is_dumb()


def _has_colour(stream: TextIO | None) -> bool:
    return _can_move(stream) and not os.environ.get("NO_COLOR")
