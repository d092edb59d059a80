"""Datasets: one file per way in which training rows are written down, found by its name.

Each has `recognises(record) -> bool`, whether a parsed JSON object is one of its rows, and
`row(record, origin) -> Row`, which raises ValueError with the reason when it is not. The names
stand in the order in which they are asked: a record that two of them recognise is the first one's.
Modules whose names begin with an underscore are shared by datasets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from hashlib import blake2b
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, NamedTuple, Protocol, cast

__all__ = [
    *("DATASETS", "BadRow", "Dataset", "LeftOut", "Row", "Turn", "dataset", "digest"),
    "recognised",
]

DATASETS = tuple(sorted(m.name for m in iter_modules(__path__) if not m.name.startswith("_")))


class Turn(NamedTuple):
    """One turn of a conversation. role: "system", "user" or "assistant"; trained: is it a label?"""

    role: str
    content: str
    trained: bool


class Row(NamedTuple):
    """One training row: either a conversation or a plain text, which is trained whole.

    turns   () for a plain text
    text    None for a conversation
    origin  where it stands, "file.jsonl:12"
    kind    the name of its dataset
    """

    turns: tuple[Turn, ...]
    text: str | None
    origin: str
    kind: str


class BadRow(NamedTuple):
    """What stands at `origin` is no row, and why in one line, or is left out on purpose."""

    origin: str
    reason: str
    on_purpose: bool = False


class LeftOut(ValueError):
    """A row that says itself that it is not to be learned from."""


class Dataset(Protocol):
    """What a file of this folder gives."""

    def recognises(self, record: Mapping[str, Any]) -> bool: ...

    def row(self, record: Mapping[str, Any], origin: str) -> Row: ...


def dataset(name: str) -> Dataset:
    """data/datasets/<name>.py; ValueError for a name that there is not."""
    if name not in DATASETS:
        near = get_close_matches(name, DATASETS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(DATASETS)}"
        raise ValueError(f"no kind of training rows is called {name!r}; {hint}")
    return cast(Dataset, import_module(f"{__name__}.{name}"))


def recognised(records: Iterable[Mapping[str, Any]]) -> str | None:
    """The name of the dataset that most of the records are of; None when it is none of them."""
    counts = dict.fromkeys(DATASETS, 0)
    for record in records:
        if name := next((n for n in DATASETS if dataset(n).recognises(record)), None):
            counts[name] += 1
    best = max(counts, key=lambda name: counts[name])
    return best if counts[best] else None


def digest(row: Row) -> bytes:
    """16 bytes that are equal for rows of the same content, wherever and however written."""
    parts = [row.text] if row.text is not None else []
    for turn in row.turns:
        parts += [turn.role, turn.content, "trained" if turn.trained else ""]
    hashed = blake2b(digest_size=16)
    for part in parts:
        encoded = part.encode("utf-8", "surrogatepass")
        hashed.update(len(encoded).to_bytes(8, "little"))  # so that no two lists look alike
        hashed.update(encoded)
    return hashed.digest()
