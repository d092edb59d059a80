"""Weight formats: how a matrix lies in memory, and the product with it.

A format is one file, found by its name. All formats cut a matrix (n_out, n_in) into groups of 16
rows and blocks of 32 columns, padded with zeros, so that one SIMD lane computes one row and a
kernel reads memory once from front to back: packed[group, block] is one run of `BLOCK_BYTES`.

A format module offers
    BLOCK_BYTES    size of one 16 x 32 block
    INT8           whether the product takes int8 activation blocks (else float32)
    NATIVE         kinds of stored tensors that `pack` takes over without a change of value
    pack(tensor, start, stop)     rows of a tensor -> uint8 (groups, blocks, BLOCK_BYTES)
    quantize(values)              float32 (16 a, 32 b) -> the same
    dequantize(packed)            -> float32 (16 groups, 32 blocks)
    matmul, row                   compiled kernels, see MATMUL and ROW in engine/kernels/matmul.py
    matmul_coarse                 with INT8: the product with one byte an activation instead of two
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# made for screens (engine/sparsity/head.py): without a zero, so that padding is not zero
SCREEN_FORMATS = frozenset({"q2"})
FORMATS = frozenset(module.name for module in iter_modules(__path__)) - SCREEN_FORMATS


class Weight(NamedTuple):
    """One packed matrix: data (groups, blocks, BLOCK_BYTES) uint8, read-only."""

    format: str
    data: NDArray[np.uint8]
    n_out: int
    n_in: int


def weight_format(name: str) -> ModuleType:
    """engine/formats/<name>.py."""
    if name not in SCREEN_FORMATS:
        require_format(name)
    return import_module(f"{__name__}.{name}")


def require_format(name: str) -> None:
    """ValueError unless a model's weights can be in this format."""
    if name not in FORMATS:
        raise ValueError(
            f"unknown weight format {name!r}; this build has {', '.join(sorted(FORMATS))}"
        )


def format_for(kind: str) -> str:
    """The format that keeps a stored kind as it is; q8 for all kinds that none keeps."""
    for name in sorted(FORMATS):
        if kind in weight_format(name).NATIVE:
            return name
    return "q8"
