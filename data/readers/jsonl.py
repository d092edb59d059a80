"""JSON Lines: every line is a document."""

from __future__ import annotations

from collections.abc import Iterator

from data.documents import Document

from . import Limits, Source
from ._bytes import lines_of, rows_of
from ._rows import document_of
from .json import loads

SUFFIXES = dict.fromkeys((".jsonl", ".ndjson", ".jsonlines"), "application/jsonl")
ISOLATED = True


def parse(content: bytes, source: Source, limits: Limits) -> Iterator[Document]:
    """A document for each line with text in it; uri#n is line n."""
    n_documents = 0
    for number, line in enumerate(lines_of(rows_of(content, source)), 1):
        if not line.strip():
            continue
        if document := document_of(loads(line, source, number), number, source, limits):
            n_documents += 1
            yield document
    if not n_documents:
        raise source.error("there is no text in it")
