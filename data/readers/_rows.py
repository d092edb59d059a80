"""Records (of json, jsonl, csv) as documents: which fields are text, title and address."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from data.documents import Document, Section

from . import Limits, Source
from ._bytes import within
from ._outline import line_of

TEXTS = "text content contents body passage document article page_content context abstract".split()
TITLES = "title name heading headline subject label".split()
URLS = "url uri link href source_url permalink".split()
# what is asked and what is answered; a row of these becomes the one above the other
PAIRS = (
    (("question", "query"), ("answer", "answers", "response", "reply")),
    (("prompt",), ("completion", "response", "answer", "output")),
    (("instruction",), ("output", "response", "answer")),
    (("front",), ("back",)),
    (("term", "word"), ("definition", "meaning")),
)
_INNER = ("text", "value", "content")
_LONGEST_METADATA = 200
_MOST_METADATA = 30
# of the reader's own
_RESERVED = {"mime", "lines", "unit", "url"}
_ADDRESS = re.compile(r"https?://\S+\Z", re.IGNORECASE)


def is_record(value: Any) -> bool:
    """Does a mapping have text in a field of a known name?"""
    if not isinstance(value, Mapping):
        return False
    names = _names(value)
    return _first(value, names, TEXTS) is not None or _pair(value, names) is not None


def document_of(value: Any, number: int, source: Source, limits: Limits) -> Document | None:
    """The document of a row; `number` counts from 1. None for a row without text."""
    title = url = ""
    metadata: dict[str, str] = {}
    if isinstance(value, Mapping):
        names = _names(value)
        text_name = _first(value, names, TEXTS)
        pair = None if text_name is not None else _pair(value, names)
        title_name = _first(value, names, TITLES)
        url_name = _first(value, names, URLS)
        title = line_of(_plain(value[title_name])) if title_name is not None else ""
        url = _plain(value[url_name]).strip() if url_name is not None else ""
        if text_name is not None:
            text = _plain(value[text_name])
        elif pair is not None:
            # "input" is the matter that an instruction is about
            parts = [_plain(value[pair[0]]), _plain(value.get("input")), _plain(value[pair[1]])]
            text = "\n\n".join(part.strip() for part in parts if part.strip())
            title = title or line_of(parts[0])
        else:
            text = readable(value)
        used = {text_name, title_name, url_name, *(pair or ())}
        metadata = _metadata(value, used) if text_name is not None or pair is not None else {}
    else:
        text = readable(value)
    text = within(text.strip(), source, limits).replace("\0", "")
    if not text:
        return None
    metadata |= {"mime": source.mime} | ({"url": url} if _ADDRESS.match(url) else {})
    title = title or f"{source.stem} {number}"
    sections = (Section(0, len(text)),)
    return Document(f"{source.uri}#{number}", title, text, sections, metadata)


def readable(value: Any) -> str:
    """A value of any shape as lines "path: value", for people and for search."""
    return "\n".join(f"{path}: {line}" if path else line for path, line in _leaves(value, ""))


def _leaves(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """(path, value) of whatever is no list or mapping, in order. Not recursive: files are deep."""
    waiting = [iter([(path, value)])]
    while waiting:
        found = next(waiting[-1], None)
        if found is None:
            waiting.pop()
            continue
        place, inner = found
        if isinstance(inner, Mapping):
            waiting.append(
                iter([(f"{place}.{k}" if place else str(k), v) for k, v in inner.items()])
            )
        elif isinstance(inner, list):
            scalars = [v for v in inner if not isinstance(v, Mapping | list)]
            if len(scalars) == len(inner) and sum(len(str(v)) for v in inner) < 200:
                waiting.append(iter([(place, ", ".join(filter(None, map(_scalar, inner))))]))
            else:
                waiting.append(iter([(f"{place}[{n}]", v) for n, v in enumerate(inner, 1)]))
        elif line := _scalar(inner):
            yield place, line


def _scalar(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value).strip()


def _plain(value: Any) -> str:
    """The text of a field: itself, the parts of a list, the "text" of a mapping."""
    if isinstance(value, Mapping):
        inner = next((value[name] for name in _INNER if name in value), None)
        return readable(value) if inner is None or isinstance(inner, Mapping) else _plain(inner)
    if isinstance(value, list):
        if all(not isinstance(part, list) for part in value):
            return "\n".join(filter(None, (_plain(part) for part in value)))
        return readable(value)
    return _scalar(value)


def _names(value: Mapping[Any, Any]) -> dict[str, Any]:
    """Small letters → the field's own name, the first of several."""
    names: dict[str, Any] = {}
    for name in value:
        names.setdefault(str(name).strip().casefold(), name)
    return names


def _first(value: Mapping[Any, Any], names: Mapping[str, Any], wanted: list[str]) -> Any:
    """The name of the first wanted field that is not empty; None when there is none."""
    return next((names[n] for n in wanted if n in names and _plain(value[names[n]]).strip()), None)


def _pair(value: Mapping[Any, Any], names: Mapping[str, Any]) -> tuple[Any, Any] | None:
    for asked, answered in PAIRS:
        first = _first(value, names, list(asked))
        second = _first(value, names, list(answered))
        if first is not None and second is not None:
            return first, second
    return None


def _metadata(value: Mapping[Any, Any], used: set[Any]) -> dict[str, str]:
    """The other short fields, so that a search can be narrowed by them."""
    found: dict[str, str] = {}
    for name, inner in value.items():
        is_short = isinstance(inner, str | int | float) and len(str(inner)) <= _LONGEST_METADATA
        if name in used or str(name) in _RESERVED or not is_short or len(str(name)) > 100:
            continue
        if (line := _scalar(inner)) and len(found) < _MOST_METADATA:
            found[str(name)] = line
    return found
