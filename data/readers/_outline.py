"""Headings in a text, and the sections between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from data.documents import Document, Section

from . import Limits, Source
from ._bytes import too_long

_LONGEST_HEADING = 200


@dataclass(frozen=True, slots=True)
class Heading:
    """text[start:end] is the heading's line (or lines); level from 1."""

    start: int
    end: int
    level: int
    title: str


def outline(text: str, headings: Sequence[Heading], title: str = "") -> tuple[Section, ...]:
    """The sections of `text`, each beginning with its heading's line.

    A heading with nothing but a deeper heading under it is part of that one's section. The title of
    the document is left out of the paths: it stands with every passage anyway.
    """
    sections: list[Section] = []
    path: list[Heading] = []
    start = 0
    bare: Heading | None = None  # the last heading, while there is no text under it
    for heading in [*headings, Heading(len(text), len(text), 0, "")]:
        body = text[bare.end if bare else start : heading.start]
        runs_on = bare is not None and heading.level > bare.level and not body.strip()
        if not runs_on:
            if text[start : heading.start].strip():
                sections.append(Section(start, heading.start, _titles(path, title)))
            start = heading.start
        while path and path[-1].level >= heading.level:
            path.pop()
        path.append(heading)
        bare = heading
    return tuple(sections)


def _titles(path: Sequence[Heading], title: str) -> tuple[str, ...]:
    names = [heading.title for heading in path if heading.title]
    return tuple(names[1:] if names and names[0] == title else names)


def line_of(text: str) -> str:
    """`text` as a title: one line, not too long."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_HEADING else line[: _LONGEST_HEADING - 1].rstrip() + "…"


class Builder:
    """A text put together from blocks and headings, for formats that are not text themselves."""

    def __init__(self, source: Source, limits: Limits) -> None:
        self._source, self._limits = source, limits
        self._parts: list[str] = []
        self._length = 0
        self._headings: list[Heading] = []

    def add(self, text: str, n_lines: int = 2) -> None:
        """Append `text` after `n_lines` line ends (unless it is the first)."""
        text = text.replace("\0", "").strip()
        if not text:
            return
        gap = "\n" * n_lines if self._parts else ""
        self._parts += (gap, text)
        self._length += len(gap) + len(text)
        if self._length > self._limits.max_chars:
            raise too_long(self._source, self._limits)

    def heading(self, level: int, text: str) -> None:
        """Append a heading of `level` (from 1) as a block of its own."""
        line = " ".join(text.replace("\0", "").split())
        if line:
            self.add(line)
            start = self._length - len(line)
            self._headings.append(Heading(start, self._length, level, line_of(line)))

    def document(self, title: str, metadata: dict[str, str]) -> Document:
        """The document; its title is the one given, the first heading, or the file's name.

        DocumentError when there is no text at all.
        """
        text = "".join(self._parts)
        if not text:
            raise self._source.error("there is no text in it")
        first = self._headings[0].title if self._headings else ""
        title = line_of(title) or first or self._source.stem
        metadata = {"mime": self._source.mime, **metadata}
        sections = outline(text, self._headings, title)
        return Document(self._source.uri, title, text, sections, metadata)
