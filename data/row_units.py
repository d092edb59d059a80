"""Where the rows of a file begin: its lines, the members of its JSON list, or passages of its text.

Each function reads the file once, from its beginning on, never holds more than a row of it, and
yields (byte offset, line number from 1) of each row. A row ends where the next one begins, so the
last one's end, the end of the file, is for the caller to add.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from typing import Protocol

MAX_ROW_BYTES = 16 << 20
# about a thousand tokens of English
PASSAGE_BYTES = 4000
# a line of its own between documents, in texts for language models
END_OF_DOCUMENT = b"<|endoftext|>"
_BLOCK = 1 << 18
_JSON_SPACE = " \t\r\n"
_AFTER_NUMBER = tuple(_JSON_SPACE + ",]")


class Reader(Protocol):
    """What is used of a binary file."""

    def read(self, size: int, /) -> bytes: ...
    def readline(self, size: int, /) -> bytes: ...


class UnreadableError(ValueError):
    """From `line` on, which begins a row at `offset`, nothing more can be read; in a few words."""

    def __init__(self, reason: str, offset: int, line: int) -> None:
        super().__init__(reason)
        self.offset, self.line = offset, line


def lines(file: Reader, offset: int = 0) -> Iterator[tuple[int, int]]:
    """The lines that are not blank."""
    start, number, has_text, is_open = offset, 0, False, False
    while piece := file.readline(_BLOCK):
        if not is_open:
            start, number, has_text = offset, number + 1, False
        if not has_text and piece.strip():
            has_text = True
            yield start, number
        is_open = not piece.endswith(b"\n")
        offset += len(piece)


def passages(file: Reader, offset: int = 0) -> Iterator[tuple[int, int]]:
    """Passages of at most PASSAGE_BYTES, as few as can be: they begin with a document, else with a
    paragraph, else with a line, else with a word."""
    start: int | None = None  # of the passage
    paragraph: tuple[int, int] | None = None  # the last that begins in it
    number, begins_line, after_blank = 0, True, False
    for piece in _pieces(file):
        number += begins_line
        here, text = (offset, number), piece.strip()
        begins_line, offset = piece.endswith(b"\n"), offset + len(piece)
        if text == END_OF_DOCUMENT:
            start = None
        elif start is None and text:
            yield here
            start, paragraph = here[0], None
        elif start is not None and text:
            if after_blank:
                paragraph = here
            for cut in (paragraph, here):
                if cut and cut[0] > start and offset - start > PASSAGE_BYTES:
                    yield cut
                    start, paragraph = cut[0], None
        after_blank = not text


def _pieces(file: Reader) -> Iterator[bytes]:
    """The lines with their ends; one that is longer than a passage in pieces, cut between words."""
    rest = b""
    while piece := rest + file.readline(PASSAGE_BYTES - len(rest)):
        end = len(piece)
        if len(piece) == PASSAGE_BYTES and not piece.endswith(b"\n"):
            end = piece.rfind(b" ") + 1 or _letter_boundary(piece)
        yield piece[:end]
        rest = piece[end:]


def _letter_boundary(piece: bytes) -> int:
    """Where the last letter of the piece begins, which may not be whole; its end if that is 0."""
    last = len(piece) - 1
    while last > 0 and piece[last] & 0xC0 == 0x80:
        last -= 1
    return last or len(piece)


def members(file: Reader, offset: int = 0) -> Iterator[tuple[int, int]]:
    """The members of the one JSON list that the file is. UnreadableError where it is none."""
    text = _Window(file, offset)
    text.skip()
    if text.take() != "[":
        raise text.error("it is no JSON list")
    text.skip()
    while (letter := text.peek()) != "]":
        start, line = text.offset, text.line
        text.pass_value()
        yield start, line
        text.skip()
        letter = text.peek()
        if letter == ",":
            text.take()
            text.skip()
        elif letter != "]":
            raise text.error("it is no JSON: ',' or ']' is missing after the row before it")
    text.take()
    text.skip()
    if text.peek():
        raise text.error("something follows the end of the list")


class _Window:
    """The part of the file around the place that is being read; `offset` and `line` are its."""

    def __init__(self, file: Reader, offset: int) -> None:
        self._file, self.offset, self.line = file, offset, 1
        # undecodable bytes come back as they were when a length is taken; rows are checked later
        self._decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
        self._text, self._at, self._is_whole = "", 0, False
        self._scan = json.JSONDecoder().raw_decode

    def error(self, reason: str) -> UnreadableError:
        return UnreadableError(reason, self.offset, self.line)

    def peek(self) -> str:
        """The next character, "" at the end of the file."""
        while self._at == len(self._text) and not self._is_whole:
            self._read()
        return self._text[self._at : self._at + 1]

    def take(self) -> str:
        letter = self.peek()
        self._move(self._at + len(letter))
        return letter

    def skip(self) -> None:
        """Go to the next character that is no space."""
        while self.peek() and self._text[self._at] in _JSON_SPACE:
            end = self._at
            while end < len(self._text) and self._text[end] in _JSON_SPACE:
                end += 1
            self._move(end)

    def pass_value(self) -> None:
        """Go to the end of the JSON value that begins here."""
        if not self.peek():
            raise self.error("it is no JSON: the list has no end")
        while True:
            try:
                end = self._scan(self._text, self._at)[1]
                # a number may go on beyond the window, in other letters as well ("-0" of "-0.5")
                is_number = self._text[self._at] in "-0123456789"
                if self._is_whole or not is_number or self._text[end : end + 1] in _AFTER_NUMBER:
                    break
            except (ValueError, RecursionError) as error:
                if self._is_whole or len(self._text) - self._at > MAX_ROW_BYTES:
                    raise self.error(_reason(error)) from error
            self._read()
        self._move(end)

    def _move(self, end: int) -> None:
        passed = self._text[self._at : end]
        self.offset += len(passed.encode("utf-8", "surrogateescape"))
        self.line += passed.count("\n")
        self._at = end

    def _read(self) -> None:
        # twice as much each time: a value is scanned again from its beginning
        block = self._file.read(max(_BLOCK, len(self._text) - self._at))
        self._is_whole = not block
        self._text = self._text[self._at :] + self._decode(block, not block)
        self._at = 0


def _reason(error: ValueError | RecursionError) -> str:
    if isinstance(error, RecursionError):
        return "its values are nested too deeply"
    if isinstance(error, json.JSONDecodeError):
        return f"it is no JSON: {error.msg}"
    return f"it is no JSON: {str(error).partition(';')[0]}"
