"""What the store hands out: rows as frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A document as it was read. A span of it is text[start:end], in characters."""

    document_id: int
    uri: str
    title: str
    text: str
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StoredChunk:
    """A window of sentences: text == document.text[start:end]; `ord` counts from 0 in a document.

    Ids grow, are never used twice, and stay with a chunk whose text did not change. `title` is the
    document's with the headings, as it is searched and encoded.
    """

    chunk_id: int
    document_id: int
    ord: int
    start: int
    end: int
    page: int | None
    headings: tuple[str, ...]
    text: str
    title: str = ""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a base was made with. `encoder` is the name that load_encoder takes (None = lexical
    only); `encoder_id` and `dimension` are None until the first vectors are stored. `backend` is
    as retrieval.backends.spec_of makes it: "faiss", or "milvus http://localhost:19530"."""

    base_id: str
    created: str
    n_sentences: int
    chunker: str
    encoder: str | None
    encoder_id: str | None
    dimension: int | None
    backend: str


@dataclass(frozen=True, slots=True)
class State:
    """Where a base stands in one snapshot. `commit` grows by one with every commit.

    `n_pending` chunks have no vector yet; every chunk up to `complete_to` has one.
    """

    commit: int
    n_documents: int
    n_chunks: int
    n_pending: int
    last_chunk_id: int
    complete_to: int
