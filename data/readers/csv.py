"""CSV and its kin: every row is a document."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from itertools import chain

from data.documents import Document

from . import Limits, Source
from ._bytes import lines_of, rows_of, too_long
from ._rows import PAIRS, TEXTS, TITLES, URLS, document_of

SUFFIXES = {
    ".csv": "text/csv",
    ".tsv": "text/tab-separated-values",
    ".tab": "text/tab-separated-values",
}
ISOLATED = True

_DELIMITERS = ",;\t|"
_SAMPLE_ROWS = 50
_SAMPLE_CHARS = 1 << 16
_KNOWN = {*TEXTS, *TITLES, *URLS, "id", *(n for pair in PAIRS for names in pair for n in names)}


def parse(content: bytes, source: Source, limits: Limits) -> Iterator[Document]:
    """A document for each row with text in it; uri#n is row n after the names of the columns."""
    text = rows_of(content, source)
    delimiter = "\t" if source.mime != "text/csv" else _delimiter(text)
    csv.field_size_limit(min(limits.max_chars + 1, sys.maxsize))
    rows = _rows(text, delimiter, source, limits)
    first = next(rows, [])
    names = _header(first)
    n_documents = 0
    for number, row in enumerate(rows if names else chain([first], rows), 1):
        columns = enumerate(row)
        record = {names[n] if n < len(names) else f"column {n + 1}": cell for n, cell in columns}
        if document := document_of(record, number, source, limits):
            n_documents += 1
            yield document
    if not n_documents:
        raise source.error("there is no text in it")


def _rows(text: str, delimiter: str, source: Source, limits: Limits) -> Iterator[list[str]]:
    """The rows that are not empty."""
    reader = csv.reader(lines_of(text), delimiter=delimiter)
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "field limit" in str(error):
                raise too_long(source, limits) from error
            raise source.error(f"it is no CSV: {error} in line {reader.line_num}") from error
        if any(cell.strip() for cell in row):
            yield row


def _delimiter(text: str) -> str:
    """The one that cuts the first rows into the same number of cells, and into most."""
    sample = text[:_SAMPLE_CHARS]
    csv.field_size_limit(_SAMPLE_CHARS)
    scores = []
    for delimiter in _DELIMITERS:
        rows = csv.reader(lines_of(sample), delimiter=delimiter)
        sizes = [len(row) for row, _ in zip(rows, range(_SAMPLE_ROWS), strict=False) if row]
        common = max(set(sizes), key=sizes.count, default=1)
        share = sizes.count(common) / len(sizes) if sizes else 0.0
        scores.append((share if common > 1 else 0.0, common))
    best = max(scores)
    return _DELIMITERS[scores.index(best)] if best[0] else ","


def _header(row: list[str]) -> list[str]:
    """The names of the columns; [] when the first row is data."""
    names = [cell.strip() for cell in row]
    is_known = any(name.casefold() in _KNOWN for name in names)
    short = all(0 < len(name) <= 60 and not name[0].isdigit() for name in names)
    if not is_known and not (short and len(set(names)) == len(names) and len(names) > 1):
        return []
    return [name or f"column {n}" for n, name in enumerate(names, 1)]
