"""From hits to passages: they grow by their neighbours, overlapping ones become one, and each gets
what a citation needs. No text is encoded here: neighbours are judged by their stored vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .rows import StoredChunk, StoredDocument
    from .store import Store


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of one document that may answer the query, with all that a citation needs."""

    chunk_id: int  # of the hit
    document_id: int
    title: str
    uri: str
    url: str  # "" when the document has none
    page: int | None  # of the hit, as headings are
    line: int | None  # of `start`, from 1; None where lines mean nothing
    headings: tuple[str, ...]
    start: int  # text == the stored document's text[start:end]
    end: int
    text: str
    score: float  # 0-1, see retrieval/fusion.py
    chunk_ids: tuple[int, ...]  # all chunks in the span, in order
    dense: float | None  # cosine of the hit; None where it has no vector or was not asked
    lexical: float | None  # BM25 of the hit, bigger is better; None when that leg did not bring it
    dense_rank: int | None  # 1 = best of its leg; None when the leg did not bring it
    lexical_rank: int | None
    hit_start: int  # start <= hit_start < hit_end <= end: the chunk that was found
    hit_end: int


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk that a search found, with its score and what both legs say about it."""

    chunk: StoredChunk
    score: float
    dense: float | None = None
    lexical: float | None = None
    dense_rank: int | None = None
    lexical_rank: int | None = None


@dataclass(slots=True)
class _Span:
    """A run of chunks of one document around its best hit."""

    hit: Hit
    chunks: list[StoredChunk]  # by ord, without gaps

    @property
    def ords(self) -> range:
        return range(self.chunks[0].ord, self.chunks[-1].ord + 1)

    def overlaps(self, other: _Span) -> bool:
        mine, theirs = self.ords, other.ords
        return (
            self.hit.chunk.document_id == other.hit.chunk.document_id
            and mine.start < theirs.stop
            and theirs.start < mine.stop
        )

    def take(self, other: _Span) -> None:
        """Become the union; the better hit stays."""
        chunks = {chunk.ord: chunk for chunk in (*self.chunks, *other.chunks)}
        self.chunks = [chunks[o] for o in sorted(chunks)]


def passages_of(store: Store, hits: Sequence[Hit], k: int, w: int, w_th: float) -> list[Passage]:
    """The first k passages that `hits` (best first) make.

    w     up to so many neighbouring chunks a side, of the same document and page,
    w_th  as long as their cosine with the hit is above this; a chunk without vector ends it
    """
    spans: list[_Span] = []
    for hit in hits:
        span = _grown(store, hit, w, w_th)
        if met := [other for other in spans if other.overlaps(span)]:
            first, *rest = met
            first.take(span)
            for other in rest:  # the span may join two that had a gap between them
                first.take(other)
                spans.remove(other)
        elif len(spans) < k:
            spans.append(span)
        else:
            break
    return cited(store, [(span.hit, span.chunks) for span in spans])


def _grown(store: Store, hit: Hit, w: int, w_th: float) -> _Span:
    if w < 1:
        return _Span(hit, [hit.chunk])
    around = store.neighbours(hit.chunk.chunk_id, w)
    vectors = store.vectors([chunk.chunk_id for chunk in around])
    (middle,) = [i for i, chunk in enumerate(around) if chunk.chunk_id == hit.chunk.chunk_id]
    # a comparison with NaN, no vector yet, is False
    is_near = vectors @ vectors[middle] > w_th if vectors.shape[1] else np.zeros(len(around), bool)
    first = last = middle
    while first > 0 and is_near[first - 1] and _follow(around[first - 1], around[first]):
        first -= 1
    while last + 1 < len(around) and is_near[last + 1] and _follow(around[last], around[last + 1]):
        last += 1
    return _Span(hit, around[first : last + 1])


def _follow(one: StoredChunk, other: StoredChunk) -> bool:
    return other.ord == one.ord + 1 and other.page == one.page


def alone(store: Store, chunk_ids: Sequence[int]) -> list[Passage]:
    """The chunks as passages, each by itself and with score 0. Call it inside store.snapshot()."""
    return cited(store, [(Hit(chunk, 0.0), [chunk]) for chunk in store.chunks(chunk_ids)])


def cited(store: Store, spans: Sequence[tuple[Hit, Sequence[StoredChunk]]]) -> list[Passage]:
    """Passages of hits with the chunks of their spans; documents that are gone are left out."""
    wanted = list(dict.fromkeys(hit.chunk.document_id for hit, _ in spans))
    documents = {document.document_id: document for document in store.documents(wanted)}
    return [
        _passage(hit, chunks, documents[hit.chunk.document_id])
        for hit, chunks in spans
        if hit.chunk.document_id in documents
    ]


def _passage(hit: Hit, chunks: Sequence[StoredChunk], document: StoredDocument) -> Passage:
    start, end = chunks[0].start, chunks[-1].end
    has_lines = document.metadata.get("lines") == "yes"
    return Passage(
        chunk_id=hit.chunk.chunk_id,
        document_id=document.document_id,
        title=document.title,
        uri=document.uri,
        url=document.metadata.get("url", ""),
        page=hit.chunk.page,
        line=document.text.count("\n", 0, start) + 1 if has_lines else None,
        headings=hit.chunk.headings,
        start=start,
        end=end,
        text=document.text[start:end],
        score=hit.score,
        chunk_ids=tuple(chunk.chunk_id for chunk in chunks),
        dense=hit.dense,
        lexical=hit.lexical,
        dense_rank=hit.dense_rank,
        lexical_rank=hit.lexical_rank,
        hit_start=hit.chunk.start,
        hit_end=hit.chunk.end,
    )
