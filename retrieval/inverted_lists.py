"""Inverted lists of Faiss: how many, trained on a bounded sample, and how many to look into."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray

from retrieval.spool import Mapped, rows_of

IVF_SQ8 = "IVF,SQ8"
IVF_PQ = "OPQ,IVF,PQ"

TRAINING_BYTES = 384 << 20  # of float32 vectors in memory
# fewer make poor centres (Faiss warns below 39), more make training long
PER_LIST = 40
N_QUERIES = 128
K = 10
TARGET_RECALL = 0.95
MIN_GAIN = 0.003  # of recall, for looking into twice as many lists
# times the length of a stored vector: what makes of it a query as hard as a real question (of
# 1 to 2.5, whose recall over the number of lists came nearest, on a million vectors; a bit harder)
NOISE = 2.5
ADDED_AT_ONCE = 16_384

Positions = NDArray[np.int64]
Matrix = NDArray[np.float32]
Search = Callable[[Matrix, int, int], Positions]  # queries, k, lists looked into


@dataclass(frozen=True, slots=True)
class Tuned:
    """How many lists a search looks into, and the recall@10 of exact search that it reached."""

    n_probe: int
    recall: float


def n_lists_of(count: int, dimension: int) -> int:
    """4 * sqrt(count), as far as a bounded training sample can give each list its share."""
    most = TRAINING_BYTES // (4 * dimension) // PER_LIST
    return int(max(1, min(4 * count**0.5, most, count // PER_LIST)))


def n_codes_of(dimension: int) -> int:
    """Bytes of a product code: one for 8 numbers of the vector."""
    return max(1, dimension // 8)


def trained(kind: str, matrix: Mapped, n_lists: int, seed: int) -> faiss.Index:
    """An empty index of `kind` with n_lists lists, trained on a sample of the matrix."""
    dimension = matrix.shape[1]
    if kind == IVF_SQ8:
        spec = f"IVF{n_lists},SQ8"
    else:
        n_codes = n_codes_of(dimension)
        # np: without an order of the codes that only Hamming distances need; it takes seconds
        spec = f"OPQ{n_codes}_{min(dimension, 4 * n_codes)},IVF{n_lists},PQ{n_codes}np"
    index = faiss.index_factory(dimension, spec, faiss.METRIC_INNER_PRODUCT)
    lists = faiss.extract_index_ivf(index)
    lists.cp.seed = seed
    lists.cp.min_points_per_centroid = 1  # small samples are for tests; no warnings on stderr
    n = min(len(matrix), max(PER_LIST * n_lists, 256 * PER_LIST), TRAINING_BYTES // 4 // dimension)
    index.train(_sample(matrix, n, seed))
    return index


def fill(index: faiss.Index, matrix: Mapped, on_count: Callable[[int], None]) -> None:
    """Add all rows; a row's position is its number in the index."""
    done = 0
    for rows in rows_of(matrix, ADDED_AT_ONCE):
        index.add(rows)
        done += len(rows)
        on_count(done)


def tune(search: Search, matrix: Mapped, n_lists: int, seed: int) -> Tuned:
    """The fewest lists (a power of two) with which `search` reaches TARGET_RECALL, or after which
    twice as many bring next to nothing: coded vectors have a ceiling of their own."""
    queries = _queries(matrix, seed)
    wanted = nearest(queries, rows_of(matrix, ADDED_AT_ONCE), min(K, len(matrix)))
    n_probe, reached = min(4, n_lists), Tuned(0, -1.0)
    while True:
        found = search(queries, K, n_probe)
        pairs = zip(found, wanted, strict=True)
        recall = float(np.mean([len(set(f) & set(w)) / len(w) for f, w in pairs]))
        if recall < reached.recall + MIN_GAIN:
            return reached
        reached = Tuned(n_probe, round(recall, 3))
        if recall >= TARGET_RECALL or n_probe >= n_lists:
            return reached
        n_probe = min(2 * n_probe, n_lists)


def _sample(matrix: Mapped, n: int, seed: int) -> Matrix:
    rows = np.random.default_rng(seed).choice(len(matrix), n, replace=False)
    return matrix[np.sort(rows)].astype(np.float32)


def _queries(matrix: Mapped, seed: int) -> Matrix:
    """Vectors that lie as far from the stored ones as questions do from passages."""
    rng = np.random.default_rng(seed + 1)
    queries = _sample(matrix, min(N_QUERIES, len(matrix)), seed + 1)
    queries += rng.standard_normal(queries.shape, np.float32) * (NOISE / queries.shape[1] ** 0.5)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    return queries


def nearest(queries: Matrix, blocks: Iterable[Matrix], k: int) -> Positions:
    """The numbers of the k rows nearest to each query, in no order, by comparing every row.

    blocks  the rows in their order, some at a time; at least k in all
    """
    best = np.full((len(queries), k), -np.inf, np.float32)
    where = np.full((len(queries), k), -1, np.int64)
    start = 0
    for rows in blocks:
        numbers = np.arange(start, start + len(rows))
        scores = np.hstack([best, queries @ rows.T])
        places = np.hstack([where, np.broadcast_to(numbers, (len(queries), len(rows)))])
        top = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        best = np.take_along_axis(scores, top, axis=1)
        where = np.take_along_axis(places, top, axis=1)
        start += len(rows)
    return where
