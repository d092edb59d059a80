"""One search: words and vectors bring candidates, fusion judges them, the best grow to passages.

The store's snapshot that the caller holds and the generation belong together; what the generation
does not hold yet is compared exactly, and what has been deleted since never comes back.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from . import fusion, lexical
from .backends import Ids, IndexUnavailableError, Vectors
from .fusion import Candidates, Weights
from .passages import Hit, Passage, cited, passages_of

if TYPE_CHECKING:
    from .encoder import Encoder
    from .rerank import Reranker
    from .store import Store

__all__ = ["MODES", "Mode", "Passage", "Search", "look_up"]

Mode = Literal["hybrid", "dense", "lexical"]
MODES: tuple[Mode, ...] = ("hybrid", "dense", "lexical")

_WEIGHTS = {"hybrid": fusion.HYBRID, "dense": fusion.DENSE, "lexical": fusion.LEXICAL}
DEPTH = 50  # candidates of each leg
CANDIDATES_SHOWN = 5  # beyond k, of those that were not good enough


class GenerationIndex(Protocol):
    """An Index that knows what it holds: vectors of chunks up to last_chunk_id."""

    last_chunk_id: int

    def search(
        self, queries: Vectors, k: int, excluded: Ids | None = None, allowed: Ids | None = None
    ) -> tuple[Ids, Vectors]:
        """See retrieval.backends.Index."""
        ...


@dataclass(frozen=True, slots=True)
class Search:
    """What one search found and how."""

    passages: tuple[Passage, ...]  # best first
    query: str
    mode: Mode  # what was really used
    why: str  # one line when that is less than was asked for, else ""
    threshold: float  # no passage has a score below it
    candidates: tuple[Passage, ...] = ()  # those behind, good enough or not, not expanded
    timings: dict[str, float] = field(default_factory=dict)  # seconds: encode, dense, lexical, …


def look_up(
    store: Store,
    index: GenerationIndex | None,
    encoder: Encoder | None,
    query: str,
    *,
    k: int = 3,
    w: int = 5,
    w_th: float = 0.5,
    mode: Mode = "hybrid",
    filter: str | Mapping[str, str] | None = None,
    reranker: Reranker | None = None,
    threshold: float | None = None,
) -> Search:
    """The passages that answer `query`. Call it inside store.snapshot().

    index      a generation of this snapshot; None = all vectors of the store are compared
    encoder    of the store's vectors; None = words only
    k          passages at most
    w, w_th    see passages_of
    filter     see Store.allowed
    threshold  a score, 0 = everything; None = fusion's, below which nothing answers the query
    ValueError when k, w or mode make no sense.
    """
    _check(k, w, mode)
    clock = Clock()
    legs = Legs(store, index, encoder, mode)
    with clock("filter"):
        allowed = None if filter is None else store.allowed(filter)
    found = legs.candidates(query, max(DEPTH, 2 * k), allowed, clock)
    if threshold is None:
        threshold = fusion.threshold(legs.weights, store.state().n_chunks)
    with clock("fusion"):
        hits = _hits(found, query, legs.weights)
    if reranker is not None and hits:
        with clock("rerank"):
            hits = reranker.rerank(query, hits)
    with clock("passages"):
        good = [hit for hit in hits if hit.score >= threshold]
        passages = passages_of(store, good, k, w, w_th)
        shown = {chunk_id for passage in passages for chunk_id in passage.chunk_ids}
        others = [hit for hit in hits if hit.chunk.chunk_id not in shown][: k + CANDIDATES_SHOWN]
        behind = cited(store, [(hit, [hit.chunk]) for hit in others])
    return Search(
        tuple(passages), query, legs.used, legs.why, threshold, tuple(behind), clock.seconds
    )


class Legs:
    """What can be searched: words always, vectors when there are some and an encoder for them.

    used, why, weights  the mode that is left, why it is less than asked, and how it is judged
    """

    def __init__(
        self, store: Store, index: GenerationIndex | None, encoder: Encoder | None, mode: Mode
    ) -> None:
        self._store, self._index, self._encoder = store, index, encoder
        self.used, self.why = mode, ""
        self.weights = _WEIGHTS[mode]
        if mode == "lexical":
            return
        state = store.state()
        n_vectors = state.n_chunks - state.n_pending if store.settings().encoder_id else 0
        if encoder is None:
            self.used, self.why = "lexical", "there is no encoder, so only words are searched for"
        elif n_vectors < state.n_chunks:
            self.why = f"vectors are still being built: {n_vectors:,} of {state.n_chunks:,}"
            if not n_vectors:
                self.used = "lexical"
        if self.used == "lexical":
            self.weights = fusion.WORDS

    def candidates(self, query: str, depth: int, allowed: Ids | None, clock: Clock) -> Candidates:
        """What the legs bring, each `depth` at most, with all that fusion wants to know."""
        nothing = np.empty(0, np.int64), np.empty(0, np.float32)
        words = dense = nothing
        vector: Vectors | None = None
        if query.strip() and (allowed is None or len(allowed) > 0):
            encoding = self._encoding(query, clock) if self.used != "lexical" else None
            if self.used != "dense":
                words = self._words(query, depth, allowed, clock)
            if encoding is not None:
                try:
                    vector = encoding.result()
                    with clock("dense"):
                        dense = self._dense(vector, depth, allowed)
                except IndexUnavailableError as error:
                    if self.used == "dense":
                        words = self._words(query, depth, allowed, clock)
                    self.used, self.why, self.weights = "lexical", str(error), fusion.WORDS
                    vector = None
        with clock("read"):
            return self._read(dense, words, vector)

    def _encoding(self, query: str, clock: Clock) -> Future[Vectors]:
        """The query's vector, made beside the search for words: both take some ten milliseconds
        and neither needs Python's lock."""
        encoder, made = self._encoder, Future[Vectors]()
        assert encoder is not None
        encode = getattr(encoder, "encode_query", encoder.encode)

        def run() -> None:
            try:
                with clock("encode"):
                    made.set_result(encode([query]))
            except BaseException as error:
                made.set_exception(error)

        threading.Thread(target=run, name="query", daemon=True).start()
        return made

    def _words(
        self, query: str, depth: int, allowed: Ids | None, clock: Clock
    ) -> tuple[Ids, NDArray[np.float32]]:
        match = lexical.match(query)
        if not match:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        with clock("lexical"):
            return self._store.lexical(match, depth, allowed)

    def _dense(
        self, vector: Vectors, depth: int, allowed: Ids | None
    ) -> tuple[Ids, NDArray[np.float32]]:
        """The nearest chunks: of the generation, and of what has come since."""
        store, index = self._store, self._index
        ids, cosines = store.delta(index.last_chunk_id if index else 0)
        if allowed is not None:
            is_allowed = np.isin(ids, allowed)
            ids, cosines = ids[is_allowed], cosines[is_allowed]
        near = cosines @ vector[0] if len(ids) else np.empty(0, np.float32)
        if index is not None:
            found, scores = index.search(vector, depth, store.deleted(), allowed)
            is_found = found[0] >= 0
            ids = np.concatenate([found[0][is_found], ids])
            near = np.concatenate([scores[0][is_found], near])
        best = np.argsort(-near, kind="stable")[:depth]
        return ids[best], near[best]

    def _read(
        self,
        dense: tuple[Ids, NDArray[np.float32]],
        words: tuple[Ids, NDArray[np.float32]],
        vector: Vectors | None,
    ) -> Candidates:
        """The chunks of both legs; cosines are exact ones, of the stored vectors."""
        ids = list(dict.fromkeys([*dense[0].tolist(), *words[0].tolist()]))
        chunks = self._store.chunks(ids)
        ids = [chunk.chunk_id for chunk in chunks]
        cosines = np.full(len(ids), np.nan, np.float32)
        if vector is not None and ids:
            cosines = self._store.vectors(ids) @ vector[0]
        bm25 = dict(zip(words[0].tolist(), words[1].tolist(), strict=True))
        return Candidates(
            chunks=chunks,
            dense=cosines,
            lexical=np.array([bm25.get(i, np.nan) for i in ids], np.float32),
            dense_rank=_ranks(dense[0], ids),
            lexical_rank=_ranks(words[0], ids),
        )


def _ranks(leg: Ids, ids: list[int]) -> list[int | None]:
    rank = {chunk_id: n for n, chunk_id in enumerate(leg.tolist(), start=1)}
    return [rank.get(chunk_id) for chunk_id in ids]


def _hits(found: Candidates, query: str, weights: Weights) -> list[Hit]:
    scores = fusion.scores(query, found, weights)
    order = np.argsort(-scores, kind="stable")
    return [
        Hit(
            chunk=found.chunks[i],
            score=float(scores[i]),
            dense=_number(found.dense[i]),
            lexical=_number(found.lexical[i]),
            dense_rank=found.dense_rank[i],
            lexical_rank=found.lexical_rank[i],
        )
        for i in order
    ]


def _number(value: np.float32) -> float | None:
    return None if np.isnan(value) else float(value)


def _check(k: int, w: int, mode: str) -> None:
    if k < 1:
        raise ValueError(f"k is the number of passages and at least 1, not {k}")
    if w < 0:
        raise ValueError(f"w is the number of neighbours a side and at least 0, not {w}")
    if mode not in MODES:
        raise ValueError(f"no search mode {mode!r}; one of {', '.join(MODES)}")


class Clock:
    """Seconds by the name of the part."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - started
