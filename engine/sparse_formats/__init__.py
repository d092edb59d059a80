"""Copies of matrices in the layouts that can be read in part: see engine/kernels/partial.py.

A weight format that has such copies has a file of its own name here, which does not begin with an
underscore. It offers
    SPREAD       whether `rows` wants activations as `spread` makes them, else float32
    pack_rows    a Weight -> uint8 (n_out padded to 32, stride)
    pack_inputs  a Weight -> uint8 (blocks of inputs, bytes of a block)
    stride       of an input in the latter, in bytes, for so many tiles of 32 outputs
    rows         compiled kernel, see ROWS in engine/kernels/partial.py
    inputs       compiled kernel, see INPUTS there
Both copies hold the very numbers of the packed matrix.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SPARSE_FORMATS = frozenset(m.name for m in iter_modules(__path__) if not m.name.startswith("_"))


class Copy(NamedTuple):
    """One matrix by rows or by inputs; data as packed, read-only."""

    format: str
    data: NDArray[np.uint8]
    n_out: int
    n_in: int


class Sparse(NamedTuple):
    """Which part of its matrices a single token reads: see engine/kernels/sparse.py for the
    feed-forwards, sparse_projection.py there for q, k, v and o.

    thresholds   float32 (n_layers, N_SITES): what is not above in its size is not read
    paths        int64 (n_layers,): feed-forwards DENSE, BY_ROWS or BY_INPUTS
    projections  int64 (n_layers, 2): 1 where q, k and v (column 0), or o, are read by inputs
    copies       what is read in part, in layouts for that (engine/sparsity/copies.py)
    importance   float32 (n_layers, intermediate_size), above 0: what gates are multiplied with
                 before they are compared; None = ones
    """

    thresholds: NDArray[np.float32]
    paths: NDArray[np.int64]
    projections: NDArray[np.int64]
    copies: Mapping[str, Copy]
    importance: NDArray[np.float32] | None = None


def sparse_format(name: str) -> ModuleType:
    """engine/sparse_formats/<name>.py."""
    if name not in SPARSE_FORMATS:
        known = ", ".join(sorted(SPARSE_FORMATS))
        raise ValueError(f"weights in {name} cannot be read in part; those in {known} can")
    return import_module(f"{__name__}.{name}")
