"""Readers: one file per kind of document, found by the table of suffixes in it.

Each has `SUFFIXES`, suffix → MIME type, `ISOLATED`, whether it runs in a child process with limits
(whatever goes through a parser of a complicated or binary format), and
`parse(content, source, limits) -> Iterator[Document]`. Modules whose names begin with an underscore
are shared by readers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path, PurePosixPath
from pkgutil import iter_modules
from types import ModuleType
from typing import TYPE_CHECKING, Any

from data.documents import Document, DocumentError

if TYPE_CHECKING:
    from ._folders import Skipped, files_in

__all__ = ["KINDS", "Limits", "Skipped", "Source", "files_in", "kind_of", "read"]

KINDS = sorted(m.name for m in iter_modules(__path__) if not m.name.startswith("_"))


@dataclass(frozen=True, slots=True)
class Limits:
    """What one file may cost.

    max_bytes          size of the file
    max_pages          of a pdf
    max_chars          of text in one document
    max_seconds        of parsing; the reader's process is ended after it
    max_memory_bytes   of the reader's process, beyond an idle one (enforced on Linux)
    max_expansion      of a compressed file (docx): unpacked bytes for each packed one
    """

    max_bytes: int = 200_000_000
    max_pages: int = 10_000
    max_chars: int = 20_000_000
    max_seconds: float = 60.0
    max_memory_bytes: int = 2_000_000_000
    max_expansion: int = 100

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class Source:
    """The file that is being parsed. uri: its absolute path (posix); mime: by its suffix."""

    uri: str
    mime: str

    @property
    def name(self) -> str:
        """The file's name."""
        return PurePosixPath(self.uri).name

    @property
    def stem(self) -> str:
        """The file's name for people: without suffix, the title of last resort."""
        return PurePosixPath(self.uri).stem or self.name

    def error(self, reason: str) -> DocumentError:
        """The line that says so of this file."""
        return DocumentError(f"{self.uri}: {reason}")


def read(path: Path | str, limits: Limits | None = None) -> Iterator[Document]:
    """The documents in a file: one, or one for each row. By its suffix; a file of an unknown one
    is read as text, unless its first bytes are those of a pdf or docx.

    Nothing of the file is executed or fetched; one that is no regular file is not opened.
    DocumentError, one line, when it cannot be read or goes beyond a limit (after some rows, maybe).
    """
    from . import _bytes

    limits = limits or Limits()
    path = Path(os.path.abspath(path))
    content = _bytes.content_of(path, limits)
    kind, mime = kind_of(path) or _kind_by(content)
    source = Source(path.as_posix(), mime)
    reader = _reader(kind)
    if reader.ISOLATED:
        from . import _isolated

        yield from _isolated.parse(kind, content, source, limits)
    else:
        yield from reader.parse(content, source, limits)


def kind_of(path: Path | str) -> tuple[str, str] | None:
    """(kind, MIME type) of a file by its name; None for an unknown suffix."""
    name = os.path.basename(path).casefold()
    suffix = PurePosixPath(name).suffix
    return _table().get(suffix if suffix else name)


@cache
def _table() -> dict[str, tuple[str, str]]:
    """Suffix, or whole name in small letters → (kind, MIME type)."""
    return {
        suffix: (kind, mime) for kind in KINDS for suffix, mime in _reader(kind).SUFFIXES.items()
    }


def _reader(kind: str) -> ModuleType:
    """data/readers/<kind>.py."""
    if kind not in KINDS:
        raise ValueError(f"no reader {kind!r}; there are {', '.join(KINDS)}")
    return import_module(f"{__name__}.{kind}")


def _kind_by(content: bytes) -> tuple[str, str]:
    if content.startswith(b"%PDF-"):
        return _table()[".pdf"]
    if content.startswith(b"PK\x03\x04") and b"word/" in content:
        return _table()[".docx"]
    return _table()[".txt"]


def __getattr__(name: str) -> Any:
    if name not in ("Skipped", "files_in"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}._folders"), name)
