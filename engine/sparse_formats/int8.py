"""Any matrix by inputs in 8 bits, one scale an input: nothing but active inputs is read.

The scales of a packed matrix stand for 32 inputs each, and of 32 inputs one is nearly always
active: at 90 % left out, scales are more than half of what copies with the stored numbers read.
Rounding the columns anew to 8 bits costs 1 % of a product (docs/log.md). Copies only: no weight
format has this name.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.formats import Weight, weight_format
from engine.kernels import simd
from engine.kernels.compiler import callback
from engine.kernels.partial import INPUTS, add_inputs
from engine.sparse_formats._numbers import BLOCK, as_bytes, by_inputs, filled, input_stride

SPREAD = False
_SLAB = 64  # groups of rows that are dequantised at a time


def pack_inputs(weight: Weight) -> NDArray[np.uint8]:
    """Blocks of 32 inputs; behind each, what its inputs' values are multiplied with (float32)."""
    largest = np.zeros(BLOCK * weight.data.shape[1], np.float32)
    for rows in _slabs(weight):
        np.maximum(largest, np.abs(rows).max(axis=0), out=largest)
    scales = largest / np.float32(127)
    steps = np.where(scales == 0, np.float32(np.inf), scales)
    q = np.concatenate([np.rint(rows / steps).astype(np.int8) for rows in _slabs(weight)])
    inputs = by_inputs(as_bytes(filled(q, BLOCK).T))
    return np.concatenate([inputs, as_bytes(scales.reshape(-1, BLOCK))], axis=1)


def dequantize(weight: Weight) -> NDArray[np.float32]:
    """The values that pack_inputs leaves of a matrix, (n_out, n_in)."""
    n_tiles = -(-weight.n_out // BLOCK)
    packed = pack_inputs(weight)
    n_bytes = BLOCK * stride(n_tiles)
    scales = np.ascontiguousarray(packed[:, n_bytes:]).view(np.float32).reshape(-1, 1)
    q = packed[:, :n_bytes].reshape(len(scales), -1).view(np.int8)
    return (q * scales)[: weight.n_in, : weight.n_out].T


def stride(tiles: int) -> int:
    """Bytes of an input."""
    return input_stride(BLOCK * tiles)


def _slabs(weight: Weight):
    for start in range(0, len(weight.data), _SLAB):
        yield weight_format(weight.format).dequantize(weight.data[start : start + _SLAB])


@callback(INPUTS)
def inputs(weight, stride, tiles, blocks, active, first, last, out):
    add_inputs(simd.load_i8, weight, stride, blocks, active, first, last, out)
