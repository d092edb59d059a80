"""Citations: numbered by code, never by the model, with the place where each passage stands.

A passage counts as used when it has most of the words of a sentence of the answer that the question
did not bring, and no passage before it has as many. An answer that only repeats the question tells
nothing either way, and then nothing is claimed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from bot import render
from bot.evidence import Evidence, Source
from bot.terminal import well_formed
from bot.words import content_words, sentences, words

SUPPORTED = 0.5  # share of a sentence's new words that a passage must have
NUMBER_WEIGHT = 2.0  # a number that is not in a passage speaks louder than a missing word
LEGS = ("dense", "lexical", "dense_rank", "lexical_rank")
MAX_SHOWN = 80  # characters of a title or heading


def marked(evidence: Evidence, question: str, answer: str) -> Evidence:
    """`evidence` with `used` set for every source, or None for all where it cannot be told."""
    asked = set(words(question))
    texts = [set(words(f"{s.title} {' '.join(s.headings)} {s.text}")) for s in evidence.sources]
    used: set[int] = set()
    is_known = False
    for sentence in sentences(answer):
        new = [word for word in content_words(sentence) if word not in asked]
        if not new:
            continue
        is_known = True
        shares = [_share(new, text) for text in texts]
        best = max(range(len(shares)), key=lambda place: shares[place], default=0)
        if shares and shares[best] >= SUPPORTED:
            used.add(best)
    sources = (
        replace(source, used=place in used if is_known else None)
        for place, source in enumerate(evidence.sources)
    )
    return replace(evidence, sources=tuple(sources))


def is_ungrounded(evidence: Evidence) -> bool:
    """Whether the answer is known to draw on none of the sources."""
    return all(source.used is False for source in evidence.sources)


def lines(sources: Iterable[Source]) -> list[str]:
    """`[1] title, "heading" · place · score 0.91 · used`, one line for each source."""
    return [_line(source) for source in sources]


def place(source: Source) -> str:
    """Where the passage stands: `notes.md:12`, `report.pdf, p. 3`, or the article's address."""
    if source.url:
        return source.url
    path, row = path_and_row(source.uri)
    where = _short(path)
    if row:
        where += f"#{row}"
    if source.page is not None:
        return f"{where}, p. {source.page}"
    line = line_of(source)
    return where if line is None else f"{where}:{line}"


def line_of(source: Source) -> int | None:
    """The line at which the part begins that was found; `source.line` is that of its neighbours."""
    if source.line is None:
        return None
    return source.line + source.text.count("\n", 0, source.hit[0])


def path_and_row(uri: str) -> tuple[str, str]:
    """`/a/b.csv#7` → ("/a/b.csv", "7"); a path that exists as it is has no row."""
    path, mark, row = uri.rpartition("#")
    if mark and row.isdigit() and not os.path.exists(uri):
        return path, row
    return uri, ""


def shown(evidence: Evidence) -> str:
    """The line above the citations: base, how it was searched, and why not better."""
    passages = render.counted(len(evidence.sources), "passage")
    mode = evidence.mode if evidence.mode in ("hybrid", "dense") else "lexical only"
    why = f": {evidence.why}" if evidence.why else ""
    return f"{passages} from {evidence.base}, {mode}{why}"


def to_record(evidence: Evidence) -> dict[str, Any]:
    """What --json prints and a session's file keeps."""
    return {
        "base": evidence.base,
        "query": evidence.query,
        "mode": evidence.mode,
        "why": evidence.why,
        "threshold": evidence.threshold,
        "passages": [_source_record(source) for source in evidence.sources],
    }


def from_record(record: Any) -> Evidence:
    """Evidence out of a session's file; ValueError, KeyError or TypeError when it is none."""
    texts: dict[str, Any] = {key: _text(record[key]) for key in ("base", "query", "mode", "why")}
    sources = tuple(_source(entry) for entry in record["passages"])
    return Evidence(**texts, sources=sources, threshold=float(record["threshold"]))


def _line(source: Source) -> str:
    title = short_title(source.title)
    headings = " > ".join(heading for heading in source.headings if heading != source.title)
    name = f'{title}, "{short_title(headings)}"' if headings else title
    parts = [f"[{source.number}] {name}", place(source), f"score {source.score:.2f}"]
    return " · ".join([*parts, "used"] if source.used else parts)


def _share(new: list[str], text: set[str]) -> float:
    weights = [NUMBER_WEIGHT if word[0].isdigit() else 1.0 for word in new]
    found = sum(weight for word, weight in zip(new, weights, strict=True) if word in text)
    return found / sum(weights)


def _short(path: str) -> str:
    """A path as seen from here: relative below this folder, else with ~ for the home."""
    for base, prefix in ((Path.cwd, ""), (Path.home, "~/")):
        try:
            return prefix + Path(path).relative_to(base()).as_posix()
        except (ValueError, OSError, RuntimeError):  # not below it; no such folder; no home
            continue
    return path


def short_title(text: str) -> str:
    """In one line, of a length that fits into one."""
    line = " ".join(text.split())
    return line if len(line) <= MAX_SHOWN else line[: MAX_SHOWN - 1] + "…"


def _source_record(source: Source) -> dict[str, Any]:
    return {
        "number": source.number,
        "title": source.title,
        "uri": source.uri,
        "url": source.url,
        "page": source.page,
        "line": source.line,
        "headings": list(source.headings),
        "start": source.start,
        "end": source.end,
        "text": source.text,
        "score": round(source.score, 4),
        "chunk_id": source.chunk_id,
        "document_id": source.document_id,
        "hit": list(source.hit),
        **{key: getattr(source, key) for key in LEGS},
        "used": source.used,
    }


def _source(entry: Any) -> Source:
    keys = ("number", "start", "end", "chunk_id", "document_id")
    numbers: dict[str, Any] = {key: _number(entry[key]) for key in keys}
    texts: dict[str, Any] = {key: _text(entry[key]) for key in ("title", "uri", "url", "text")}
    first, last = (_number(value) for value in entry["hit"])
    if entry["used"] not in (None, True, False):
        raise ValueError(f"used is {entry['used']!r}")
    return Source(
        **numbers,
        **texts,
        score=float(entry["score"]),
        page=_number_or_none(entry["page"]),
        line=_number_or_none(entry["line"]),
        headings=tuple(_text(heading) for heading in entry["headings"]),
        hit=(first, last),
        dense=None if entry["dense"] is None else float(entry["dense"]),
        lexical=None if entry["lexical"] is None else float(entry["lexical"]),
        dense_rank=_number_or_none(entry["dense_rank"]),
        lexical_rank=_number_or_none(entry["lexical_rank"]),
        used=entry["used"],
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"text expected, found {type(value).__name__}")
    return well_formed(value)


def _number_or_none(value: Any) -> int | None:
    return None if value is None else _number(value)


def _number(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"a number from 0 up expected, found {value!r}")
    return value
