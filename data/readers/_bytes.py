"""The bytes of a file that may be anything: a pipe, a device, unreadable, endless, gone."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from data.documents import DocumentError
from data.encodings import NotTextError, decode

from . import Limits, Source

_BLOCK = 1 << 20
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
_WAYS_OUT = {
    errno.ENOENT: "it is not there (any more)",
    errno.EACCES: "permission denied; make it readable, or leave it out",
}


def special(mode: int) -> str | None:
    """What a file is that is no regular one ("a pipe"); None for a regular file."""
    if stat.S_ISREG(mode):
        return None
    return next((name for is_kind, name in _KINDS if is_kind(mode)), "no regular file")


def reason_of(error: OSError) -> str:
    """Why a file cannot be read, in a few words."""
    return _WAYS_OUT.get(error.errno or 0) or (error.strerror or str(error)).lower()


def content_of(path: Path, limits: Limits) -> bytes:
    """All bytes of the file. Looks before it opens and never waits; DocumentError in one line."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        shown = str(path).encode("utf-8", "backslashreplace").decode()
        raise DocumentError(f"{shown}: its name is not valid Unicode; rename it") from error
    try:
        if name := special(os.stat(path).st_mode):
            raise DocumentError(f"{path.as_posix()}: it is {name}, not a file to read")
        # a pipe put in its place meanwhile must not make us wait
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(path, flags | getattr(os, "O_CLOEXEC", 0)), "rb", 0) as file:
            if name := special(os.fstat(file.fileno()).st_mode):
                raise DocumentError(f"{path.as_posix()}: it is {name}, not a file to read")
            content = bytearray()
            while len(content) <= limits.max_bytes and (block := file.read(_BLOCK)):
                content += block
    except (OSError, ValueError) as error:
        if isinstance(error, DocumentError):
            raise
        reason = reason_of(error) if isinstance(error, OSError) else str(error)
        raise DocumentError(f"{path.as_posix()}: {reason}") from error
    if len(content) > limits.max_bytes:
        raise DocumentError(
            f"{path.as_posix()}: it is larger than {limits.max_bytes / 1e6:,.0f} MB; split it, or "
            "raise the limit max_bytes"
        )
    return bytes(content)


def text_of(content: bytes, source: Source, limits: Limits, declared: str | None = None) -> str:
    """The decoded content, at most limits.max_chars of it; DocumentError when it is no text."""
    return within(rows_of(content, source, declared), source, limits)


def rows_of(content: bytes, source: Source, declared: str | None = None) -> str:
    """The decoded content of a file of many documents; DocumentError when it is no text."""
    try:
        return decode(content, declared)[0]
    except NotTextError as error:
        raise source.error(str(error)) from error


def lines_of(text: str) -> Iterator[str]:
    """The lines of `text` with their ends, one at a time: no second copy of a large file."""
    start = 0
    while start < len(text):
        end = text.find("\n", start) + 1 or len(text)
        yield text[start:end]
        start = end


def within(text: str, source: Source, limits: Limits) -> str:
    """`text`, or DocumentError when it is too long."""
    if len(text) > limits.max_chars:
        raise too_long(source, limits)
    return text


def too_long(source: Source, limits: Limits) -> DocumentError:
    """The line that says so."""
    return source.error(
        f"it has more than {limits.max_chars:,} characters of text; split it, or raise the limit "
        "max_chars"
    )
