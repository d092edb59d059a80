"""A vector backend of a few lines: two .npy files, searched exactly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.backends import Ids, IndexFileError, Vectors


class PlainIndex:
    """Implements retrieval.backends.Index; `is_closed` is for tests."""

    def __init__(self, ids: Ids, vectors: Vectors) -> None:
        self.ids, self.vectors, self.is_closed = ids, vectors, False

    def search(
        self, queries: Vectors, k: int, excluded: Ids | None = None, allowed: Ids | None = None
    ) -> tuple[Ids, Vectors]:
        cosines = queries @ self.vectors.T
        barred: NDArray[np.bool_] = np.isin(self.ids, [] if excluded is None else excluded)
        if allowed is not None:
            barred |= ~np.isin(self.ids, allowed)
        cosines[:, barred] = -np.inf
        best = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
        found = np.take_along_axis(cosines, best, axis=1)
        return np.where(np.isinf(found), -1, self.ids[best]), found

    def close(self) -> None:
        self.is_closed = True


def build(
    folder: Path,
    vectors: Iterable[tuple[Ids, Vectors]],
    count: int,
    dimension: int,
    **options: Any,
) -> dict[str, Any]:
    """See retrieval.backends.Backend."""
    blocks = list(vectors)
    np.save(folder / "ids.npy", np.concatenate([block[0] for block in blocks]))
    np.save(folder / "vectors.npy", np.concatenate([block[1] for block in blocks]))
    n = sum(len(block[0]) for block in blocks)
    return {
        "kind": "plain",
        "why": "a test",
        "count": n,
        "dimension": dimension,
        "metric": "cosine",
    }


def open(folder: Path, manifest: Mapping[str, Any]) -> PlainIndex:  # the protocol's name
    """See retrieval.backends.Backend."""
    ids = np.load(folder / "ids.npy", allow_pickle=False)
    if len(ids) != manifest["count"]:
        raise IndexFileError(f"{folder} holds {len(ids)} vectors, not {manifest['count']}")
    return PlainIndex(ids, np.load(folder / "vectors.npy", allow_pickle=False))
