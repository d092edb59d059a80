"""A document in chunks: windows of sentences that never leave a section.

A paragraph with enough sentences is cut by itself and short paragraphs are taken together, so an
edited paragraph changes its own chunks and leaves the others, whose embeddings stay valid.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from .documents import Document, Section
from .sentences import Span, sentences

# the version of the way text is cut; another version means that documents are cut again
CHUNKER = "sentences-1"
# bytes of UTF-8 in a chunk, at most: about 256 tokens, what small encoders read. Bytes, because
# encoders of English give a token to every two or three bytes of Cyrillic or Chinese
MAX_BYTES = 1000
# a sentence counts for no more than its size in these: items of a list are read several at a time
_USUAL_BYTES = 60

_WORD = re.compile(r"\w")
_AROUND_HEADINGS = "#=-~*_ \t\n"


@dataclass(frozen=True, slots=True)
class Chunk:
    """text == document.text[start:end] (in characters), without white space at its ends."""

    start: int
    end: int
    text: str
    headings: tuple[str, ...] = ()
    page: int | None = None


def chunks_of(document: Document, n_sentences: int = 3) -> list[Chunk]:
    """The chunks of `document`: in order, not overlapping, together all that is no white space.

    A chunk holds n_sentences sentences of one section; more where they are short or where the last
    of a paragraph would stand alone, fewer at the end of a paragraph, and at most MAX_BYTES; longer
    sentences are split at white space. Where metadata has "unit": "lines", a chunk is made of whole
    lines.
    """
    if n_sentences < 1:
        raise ValueError(f"a chunk has at least one sentence; n_sentences is {n_sentences}")
    text = document.text
    by_lines = document.metadata.get("unit") == "lines"
    found = []
    for section in document.sections or (Section(0, len(text)),):
        spans = (
            _windows_of_lines(text, section)
            if by_lines
            else _windows(text, section, document.title, n_sentences)
        )
        found += [Chunk(a, b, text[a:b], section.headings, section.page) for a, b in spans]
    return found


def _windows(text: str, section: Section, title: str, n: int) -> Iterator[Span]:
    """The spans of the section's chunks."""
    headings = {title, *section.headings}
    groups: list[list[_Unit]] = []
    short: list[_Unit] = []  # headings and paragraphs too short to be cut by themselves
    for paragraph in _paragraphs(text, section):
        units = [
            _Unit(*piece, _n_bytes(text, *piece), counts=_counts(text, piece, headings))
            for span in paragraph
            for piece in _pieces(text, *span)
        ]
        if not _is_full(units, n):
            short += units
        elif _is_full(short, n):
            groups += [short, units]
            short = []
        else:
            groups.append(short + units)
            short = []
    if groups and not _is_full(short, n):
        groups[-1] += short
    else:
        groups.append(short)
    for group in groups:
        yield from _packed(text, group, n)


class _Unit(NamedTuple):
    """A sentence, or a piece of one."""

    start: int
    end: int
    n_bytes: int
    counts: bool


def _counts(text: str, span: Span, headings: set[str]) -> bool:
    """Is it one of the n sentences? A heading's line and a line of dashes are not."""
    is_heading = text[span[0] : span[1]].strip(_AROUND_HEADINGS) in headings
    return not is_heading and _WORD.search(text, *span) is not None


def _paragraphs(text: str, section: Section) -> Iterator[list[Span]]:
    """The section's sentences, those between two blank lines together."""
    paragraph: list[Span] = []
    for start, end in sentences(text, section.start, section.end):
        if paragraph and text.count("\n", paragraph[-1][1], start) > 1:
            yield paragraph
            paragraph = []
        paragraph.append((start, end))
    if paragraph:
        yield paragraph


def _is_full(units: list[_Unit], n: int) -> bool:
    """Are there `n` sentences, and are they of some size?"""
    n_bytes = sum(unit.n_bytes for unit in units if unit.counts)
    return sum(unit.counts for unit in units) >= n and n_bytes >= n * _USUAL_BYTES


def _packed(text: str, units: list[_Unit], n: int) -> Iterator[Span]:
    """Windows that are full, or as large as MAX_BYTES lets them be; no thin one at the end."""
    windows: list[list[_Unit]] = []
    n_counted = n_bytes = size = 0
    for unit in units:
        is_full = n_counted >= n and n_bytes >= n * _USUAL_BYTES
        gap = _n_bytes(text, windows[-1][-1].end, unit.start) if windows else 0
        if windows and not (unit.counts and is_full) and size + gap + unit.n_bytes <= MAX_BYTES:
            windows[-1].append(unit)
            size += gap + unit.n_bytes
        else:
            windows.append([unit])
            n_counted, n_bytes, size = 0, 0, unit.n_bytes
        if unit.counts:
            n_counted, n_bytes = n_counted + 1, n_bytes + unit.n_bytes
    if n > 1 and len(windows) > 1 and n_counted < 2:
        if _n_bytes(text, windows[-2][0].start, windows[-1][-1].end) <= MAX_BYTES:
            windows[-2:] = [windows[-2] + windows[-1]]
    for window in windows:
        yield window[0].start, window[-1].end


def _n_bytes(text: str, start: int, end: int) -> int:
    return len(text[start:end].encode("utf-8", "replace"))


def _pieces(text: str, start: int, end: int) -> Iterator[Span]:
    """text[start:end] itself, or cut into even pieces of at most MAX_BYTES."""
    left = _n_bytes(text, start, end)
    while left > MAX_BYTES:
        n_pieces = -(-left // MAX_BYTES)
        fitting = text[start : start + MAX_BYTES].encode("utf-8", "replace")[:MAX_BYTES]
        most = start + len(fitting.decode("utf-8", "ignore"))
        wanted = min(most, start + -(-(end - start) // n_pieces))
        cut = _cut(text, start, wanted, most)
        yield start, start + len(text[start:cut].rstrip())
        left -= _n_bytes(text, start, cut)
        start = cut
        while start < end and text[start].isspace():
            left -= _n_bytes(text, start, start + 1)
            start += 1
    if start < end:
        yield start, end


def _cut(text: str, start: int, wanted: int, most: int) -> int:
    """A place to cut: the end of a line or a space near `wanted`, or right before `most`."""
    least = start + (wanted - start) // 2
    if (line := text.rfind("\n", least, wanted)) > start:
        return line
    for is_place in (str.isspace, lambda character: not character.isalnum()):
        for place in range(min(wanted, most - 1), least, -1):
            if is_place(text[place]):
                return place if text[place].isspace() else place + 1
    while most > least + 1 and unicodedata.combining(text[most]):
        most -= 1
    return most


def _windows_of_lines(text: str, section: Section) -> Iterator[Span]:
    """Whole lines up to MAX_BYTES, cut at a blank line where one lies in the second half."""
    lines = _lines(text, section)
    first = 0
    while first < len(lines):
        last, blank, size = first, 0, 0
        while last < len(lines) and (size := size + lines[last][2]) <= MAX_BYTES:
            last += 1
            if size * 2 > MAX_BYTES and text[lines[last - 1][0] : lines[last - 1][1]].isspace():
                blank = last
        if last < len(lines):
            last = blank or max(last, first + 1)
        start, end = lines[first][0], lines[last - 1][1]
        stripped = text[start:end].strip()
        if stripped:
            start += len(text[start:end]) - len(text[start:end].lstrip())
            yield from _pieces(text, start, start + len(stripped))
        first = last


def _lines(text: str, section: Section) -> list[tuple[int, int, int]]:
    """(start, end with its line end, bytes) of each line."""
    lines, start = [], section.start
    while start < section.end:
        newline = text.find("\n", start, section.end)
        end = newline + 1 if newline >= 0 else section.end
        lines.append((start, end, _n_bytes(text, start, end)))
        start = end
    return lines
