"""JSON: a list of records becomes a document each; any other shape its paths and values."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from data.documents import Document

from . import Limits, Source
from ._bytes import rows_of
from ._outline import Builder
from ._rows import TITLES, document_of, is_record, readable

SUFFIXES = {".json": "application/json", ".geojson": "application/geo+json"}
ISOLATED = True


def parse(content: bytes, source: Source, limits: Limits) -> Iterator[Document]:
    """A document for each record (uri#n, from 1), or one for the whole."""
    value = loads(rows_of(content, source), source)
    records = _records(value)
    if records is None:
        builder = Builder(source, limits)
        builder.add(readable(value))
        names = (
            {str(name).casefold(): inner for name, inner in value.items()}
            if isinstance(value, Mapping)
            else {}
        )
        titles = (names[name] for name in TITLES if isinstance(names.get(name), str))
        yield builder.document(next(titles, source.stem), {})
        return
    n_documents = 0
    for number, record in enumerate(records, 1):
        if document := document_of(record, number, source, limits):
            n_documents += 1
            yield document
    if not n_documents:
        raise source.error("there is no text in it")


def loads(text: str, source: Source, line: int | None = None) -> Any:
    """The value in `text`; numbers stay as they are written. DocumentError names the place."""
    try:
        return json.loads(text, parse_int=str, parse_float=str, parse_constant=str)
    except json.JSONDecodeError as error:
        place = f"line {line or error.lineno}, column {error.colno}"
        raise source.error(f"it is no JSON: {error.msg} at {place}; correct it there") from error
    except RecursionError as error:
        place = f" in line {line}" if line else ""
        raise source.error(f"its values are nested too deeply{place}") from error


def _records(value: Any) -> list[Any] | None:
    """The list of records that the file is, or holds as the only one in a mapping."""
    if isinstance(value, Mapping):
        if is_record(value):
            return [value]
        lists = [inner for inner in value.values() if isinstance(inner, list)]
        return _records(lists[0]) if len(lists) == 1 else None
    if not isinstance(value, list) or not value:
        return None
    n_records = sum(map(is_record, value))
    return value if n_records * 2 > len(value) else None
