"""Vectors that stream by, laid down on the disk: read from the store once, used several times."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data import files

Batches = Iterable[tuple[NDArray[np.int64], NDArray[np.float32]]]
Mapped = NDArray[np.float16]


def spool(
    vectors: Batches, path: Path, dimension: int, on_count: Callable[[int], None] | None = None
) -> tuple[NDArray[np.int64], Mapped]:
    """Write all `vectors` to `path` as float16; returns ids (n,) and the mapped matrix (n, d).

    float16 loses nothing: the store keeps float16 too. ValueError when ids do not grow, or
    vectors have another dimension or numbers that are not finite.
    """
    ids: list[NDArray[np.int64]] = []
    n, last = 0, -1
    with files.room(path.parent, lambda: 1), path.open("wb") as file:
        for some, rows in vectors:
            check(some, rows, last, dimension)
            if not len(some):
                continue
            file.write(np.ascontiguousarray(rows, np.float16).data)
            ids.append(np.array(some, np.int64))
            n, last = n + len(some), int(some[-1])
            if on_count:
                on_count(n)
    if not n:
        return np.empty(0, np.int64), np.empty((0, dimension), np.float16)
    return np.concatenate(ids), mapped(path, n, dimension)


def mapped(path: Path, n: int, dimension: int) -> Mapped:
    """The float16 matrix (n, dimension) in the file `path`, read as it is used."""
    return np.memmap(path, np.float16, "r", shape=(n, dimension))


def rows_of(matrix: Mapped, n_rows: int) -> Iterable[NDArray[np.float32]]:
    """The matrix in blocks of n_rows, as float32."""
    for start in range(0, len(matrix), n_rows):
        yield matrix[start : start + n_rows].astype(np.float32)


def check(ids: NDArray[Any], rows: NDArray[Any], last: int, dimension: int) -> None:
    """ValueError unless a batch can stand in an index behind the id `last`."""
    if rows.shape != (len(ids), dimension):
        raise ValueError(f"vectors of shape {rows.shape} where {(len(ids), dimension)} is expected")
    if len(ids) and (ids[0] <= last or (np.diff(ids) <= 0).any()):
        raise ValueError(f"ids must grow from batch to batch; after {last} comes {ids[0]}")
    if not np.isfinite(rows).all():
        raise ValueError(f"a vector between the ids {ids[0]} and {ids[-1]} is not finite")
