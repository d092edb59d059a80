"""What the knowledge base answers besides passages."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(slots=True)
class Report:
    """What an add or a sync did, counted in documents (chunks where the name says so).

    `skipped` holds (path or URI, reason); `cancelled` says that it stopped early, on request.
    """

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    removed: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)
    n_chunks: int = 0
    n_new_chunks: int = 0
    cancelled: bool = False


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that `verify` found: which file, what is wrong, the way out, and whether repair
    has taken it."""

    where: str
    what: str
    way_out: str
    repaired: bool = False


@dataclass(frozen=True, slots=True)
class Info:
    """What `kb show` prints. Sizes in bytes; `kind` and `why` are the index's own words."""

    name: str
    folder: Path
    created: str
    n_documents: int
    n_chunks: int
    n_embedded: int
    commit: int
    encoder: str | None
    encoder_id: str | None
    dimension: int | None
    chunker: str
    n_sentences: int
    backend: str
    generation: int | None
    n_indexed: int
    kind: str | None
    why: str | None
    n_bytes: int
    n_index_bytes: int
    sources: tuple[tuple[str, int], ...] = ()  # (folder or file, number of its documents)
