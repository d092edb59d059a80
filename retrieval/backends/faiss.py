"""Faiss indexes on one machine: exact for small bases, inverted lists above, all memory-mapped.

    up to            kind             bytes a vector (384 numbers)
    50,000           Flat             768: every vector as float16, which is what the store holds
    1,500,000        IVF,SQ8          392: lists of vectors with 8 bits a number
    beyond           OPQ,IVF,PQ       56 in lists, and 768 on the disk that are read for the best

Files: index.faiss, ids.npy (the id of each position) and, for OPQ,IVF,PQ, vectors.f16.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from data import files
from retrieval import inverted_lists
from retrieval.backends import Ids, IndexFileError, Manifest, Vectors
from retrieval.inverted_lists import IVF_PQ, IVF_SQ8
from retrieval.spool import Mapped, mapped, rows_of, spool

FLAT = "Flat"
FLAT_LIMIT = 50_000
SQ8_LIMIT = 1_500_000

INDEX_FILE = "index.faiss"
IDS_FILE = "ids.npy"
VECTORS_FILE = "vectors.f16"
# the first four bytes of the only files that are opened
FOURCC = {FLAT: b"IxSQ", IVF_SQ8: b"IwSq", IVF_PQ: b"IxPT"}
# of OPQ,IVF,PQ so many times k, and at least so many, are compared again with whole vectors
RESCORED, RESCORED_AT_LEAST = 20, 200
# a filter that leaves less than this share of the vectors has every list looked into
NARROW = 0.2

# what one array of a small file may take: tables that Faiss makes while it reads are counted too
READ_BYTES = 1 << 30

OnProgress = Callable[[int, int | None, str], None]  # done, total, what

_limits = threading.Lock()  # Faiss's limits for reading are global


def choose(count: int, dimension: int) -> tuple[str, str]:
    """The kind of index for `count` vectors, and why, in a line for people."""
    if count <= FLAT_LIMIT:
        return FLAT, f"up to {FLAT_LIMIT:,} vectors every one is compared: exact, and fast enough"
    if count <= SQ8_LIMIT:
        size = files.megabytes(count * (dimension + 8))
        return IVF_SQ8, f"above {FLAT_LIMIT:,} vectors only near lists are read; {size} in all"
    size = files.megabytes(count * (inverted_lists.n_codes_of(dimension) + 8))
    return IVF_PQ, (
        f"above {SQ8_LIMIT:,} vectors they are kept as codes ({size}, memory-mapped); "
        "the best are compared again with whole vectors on the disk"
    )


def build(
    folder: Path,
    vectors: Iterable[tuple[Ids, Vectors]],
    count: int,
    dimension: int,
    *,
    kind: str | None = None,
    n_lists: int | None = None,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> Manifest:
    """See retrieval.backends.Backend. The same vectors give the same bytes.

    kind, n_lists  instead of the choice by size
    on_progress    hears (vectors done, vectors in all, what is being done)
    """
    report = on_progress or (lambda done, total, what: None)
    path = folder / VECTORS_FILE
    ids, matrix = spool(vectors, path, dimension, lambda n: report(n, count, "reading vectors"))
    chosen, why = choose(len(ids), dimension)
    if kind is not None and kind != chosen:
        if kind not in FOURCC:
            raise ValueError(f"no index of kind {kind!r}; one of {', '.join(FOURCC)}")
        chosen, why = kind, "asked for"
    manifest: Manifest = {
        "kind": chosen, "why": why, "count": len(ids), "dimension": dimension, "metric": "cosine"
    }  # fmt: skip
    if chosen == FLAT:
        index = _flat(matrix, dimension, report)
    else:
        index, tuned = _lists(chosen, matrix, n_lists, seed, report)
        manifest |= tuned
    with files.room(folder, lambda: max(1, len(ids) * 8)):
        np.save(folder / IDS_FILE, ids, allow_pickle=False)
        faiss.write_index(index, str(folder / INDEX_FILE))
    del matrix  # Windows keeps the file while it is mapped
    if chosen != IVF_PQ:
        files.delete(path)
    return manifest


def _flat(matrix: Mapped, dimension: int, report: OnProgress) -> faiss.Index:
    half = faiss.ScalarQuantizer.QT_fp16
    index = faiss.IndexScalarQuantizer(dimension, half, faiss.METRIC_INNER_PRODUCT)
    for rows in rows_of(matrix, inverted_lists.ADDED_AT_ONCE):
        index.add(rows)
    report(len(matrix), len(matrix), "indexing")
    return index


def _lists(
    kind: str, matrix: Mapped, n_lists: int | None, seed: int, report: OnProgress
) -> tuple[faiss.Index, Manifest]:
    count, dimension = matrix.shape
    if not count:
        raise ValueError(f"an index of kind {kind} cannot be built of no vectors")
    n_lists = n_lists or inverted_lists.n_lists_of(count, dimension)
    report(0, count, f"training {n_lists:,} lists")
    index = inverted_lists.trained(kind, matrix, n_lists, seed)
    inverted_lists.fill(index, matrix, lambda n: report(n, count, "indexing"))
    report(count, count, "measuring recall")
    searched = FaissIndex(index, np.arange(count), 1, matrix if kind == IVF_PQ else None)

    def look(queries: Vectors, k: int, n_probe: int) -> Ids:
        searched.n_probe = n_probe
        return searched.search(queries, k)[0]

    tuned = inverted_lists.tune(look, matrix, n_lists, seed)
    return index, {"n_lists": n_lists, "n_probe": tuned.n_probe, "recall_at_10": tuned.recall}


def open(folder: Path, manifest: Mapping[str, Any]) -> FaissIndex:
    """See retrieval.backends.Backend."""
    try:
        kind, count, dimension = manifest["kind"], int(manifest["count"]), manifest["dimension"]
        n_probe = int(manifest.get("n_probe", 1))
        fourcc = FOURCC[kind]
    except (KeyError, TypeError, ValueError) as error:
        raise IndexFileError(f"{folder}: the manifest is no Faiss index's ({error!r})") from error
    path = folder / INDEX_FILE
    ids = _read_ids(folder / IDS_FILE, count)
    index = _read(path, kind, fourcc)
    _compare(path, "dimension", index.d, dimension)
    _compare(path, "number of vectors", index.ntotal, count)
    _compare(path, "metric", index.metric_type, faiss.METRIC_INNER_PRODUCT)
    matrix = None
    if kind == IVF_PQ:
        size = (folder / VECTORS_FILE).stat().st_size
        _compare(folder / VECTORS_FILE, "size", size, 2 * count * dimension)
        matrix = mapped(folder / VECTORS_FILE, count, dimension)
    return FaissIndex(index, ids, n_probe, matrix)


def _read_ids(path: Path, count: int) -> Ids:
    try:
        ids: Ids = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise IndexFileError(f"{path} cannot be read: {error}") from error
    if ids.dtype != np.int64 or ids.shape != (count,) or (count and (np.diff(ids) <= 0).any()):
        raise IndexFileError(f"{path} does not hold {count:,} growing ids")
    return ids


def _read(path: Path, kind: str, fourcc: bytes) -> faiss.Index:
    # Faiss maps lists on the disk on POSIX only; its other way of mapping does not do lists
    lists = faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY if sys.platform != "win32" else 0
    try:
        with path.open("rb") as file:
            found = file.read(4)
        if found != fourcc:
            raise IndexFileError(
                f"{path} begins with {found!r} where {kind} begins with {fourcc!r}"
            )
        with _limits:
            before = faiss.get_deserialization_vector_byte_limit()
            faiss.set_deserialization_vector_byte_limit(max(path.stat().st_size, READ_BYTES))
            try:
                flags = faiss.IO_FLAG_MMAP_IFC if kind == FLAT else lists
                return faiss.read_index(str(path), flags)
            finally:
                faiss.set_deserialization_vector_byte_limit(before)
    except (OSError, RuntimeError, MemoryError) as error:
        said = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise IndexFileError(f"{path} cannot be read: {said[0]}") from error


def _compare(path: Path, what: str, found: int, stated: int) -> None:
    if found != stated:
        raise IndexFileError(f"{path}: its {what} is {found:,}, the manifest says {stated:,}")


class FaissIndex:
    """An opened index; see retrieval.backends.Index. Position i of the index has the id ids[i]."""

    def __init__(self, index: faiss.Index, ids: Ids, n_probe: int, matrix: Mapped | None) -> None:
        """matrix: whole vectors (n, d) to compare the best with again."""
        self._index: faiss.Index | None = index
        self._ids = ids
        self._matrix = matrix
        self._dimension = int(index.d)
        self.n_probe = n_probe

    def search(
        self, queries: Vectors, k: int, excluded: Ids | None = None, allowed: Ids | None = None
    ) -> tuple[Ids, Vectors]:
        """See retrieval.backends.Index."""
        index, shape = self._index, (len(queries), k)
        if index is None:
            raise ValueError("the index has been closed")
        if queries.ndim != 2 or queries.shape[1] != self._dimension:
            raise ValueError(f"queries {queries.shape} for vectors of {self._dimension} numbers")
        is_kept = self._kept(excluded, allowed)
        if not len(self._ids) or k < 1 or (is_kept is not None and not is_kept.any()):
            return np.full(shape, -1, np.int64), np.full(shape, -np.inf, np.float32)
        wanted = k if self._matrix is None else max(RESCORED * k, RESCORED_AT_LEAST)
        wanted = min(wanted, len(self._ids))
        queries = np.ascontiguousarray(queries, np.float32)
        cosines, positions = _on_threads(index, queries, wanted, self._parameters(is_kept))
        if self._matrix is not None:
            positions, cosines = _rescored(queries, positions, self._matrix)
        return self._answer(positions[:, :k], cosines[:, :k], shape)

    def close(self) -> None:
        """See retrieval.backends.Index."""
        self._index = self._matrix = None
        self._ids = np.empty(0, np.int64)

    def _answer(
        self, positions: Ids, cosines: Vectors, shape: tuple[int, int]
    ) -> tuple[Ids, Vectors]:
        ids, scores = np.full(shape, -1, np.int64), np.full(shape, -np.inf, np.float32)
        is_found = positions >= 0
        ids[:, : positions.shape[1]][is_found] = self._ids[positions[is_found]]
        scores[:, : positions.shape[1]][is_found] = cosines[is_found]
        return ids, scores

    def _kept(self, excluded: Ids | None, allowed: Ids | None) -> NDArray[np.bool_] | None:
        """Which positions may come back; None = all."""
        if allowed is None and (excluded is None or not len(excluded)):
            return None
        if allowed is None:
            is_kept = np.ones(len(self._ids), np.bool_)
        else:
            is_kept = np.zeros(len(self._ids), np.bool_)
            is_kept[self._positions(allowed)] = True
        if excluded is not None:
            is_kept[self._positions(excluded)] = False
        return is_kept

    def _positions(self, ids: Ids) -> Ids:
        places = np.searchsorted(self._ids, ids)
        places[places == len(self._ids)] = 0
        return places[self._ids[places] == ids] if len(self._ids) else places[:0]

    def _parameters(self, is_kept: NDArray[np.bool_] | None) -> faiss.SearchParameters | None:
        given: dict[str, Any] = {}
        n_probe = self.n_probe
        if is_kept is not None:
            bits = np.packbits(is_kept, bitorder="little")
            given["sel"] = faiss.IDSelectorBitmap(bits)
            if is_kept.mean() < NARROW:
                n_probe = 1 << 30
        if isinstance(self._index, faiss.IndexScalarQuantizer):
            return faiss.SearchParameters(**given) if given else None
        lists = faiss.extract_index_ivf(self._index)
        inner = faiss.SearchParametersIVF(nprobe=min(n_probe, lists.nlist), **given)
        if lists is self._index or not isinstance(self._index, faiss.IndexPreTransform):
            return inner
        return faiss.SearchParametersPreTransform(index_params=inner)


def _on_threads(
    index: faiss.Index, queries: Vectors, k: int, parameters: faiss.SearchParameters | None
) -> tuple[Vectors, Ids]:
    """One query runs on the calling thread: waiting for others costs more than it gains."""
    before = faiss.omp_get_max_threads()
    if len(queries) == 1:
        faiss.omp_set_num_threads(1)
    try:
        cosines, positions = index.search(queries, k, params=parameters)
    finally:
        faiss.omp_set_num_threads(before)
    return cosines, positions


def _rescored(queries: Vectors, positions: Ids, matrix: Mapped) -> tuple[Ids, Vectors]:
    """The positions in the order of their whole vectors' cosines."""
    cosines = np.full(positions.shape, -np.inf, np.float32)
    for row, (query, found) in enumerate(zip(queries, positions, strict=True)):
        is_found = found >= 0
        cosines[row, is_found] = matrix[found[is_found]].astype(np.float32) @ query
    order = np.argsort(-cosines, axis=1, kind="stable")
    return np.take_along_axis(positions, order, 1), np.take_along_axis(cosines, order, 1)
