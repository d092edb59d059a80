"""8-bit weights, to be read in part: int8 as they are, not 128 more."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.formats import Weight
from engine.kernels import simd
from engine.kernels.compiler import block, callback
from engine.kernels.layout import ROWS as LANES
from engine.kernels.partial import INPUTS, ROWS, skip_inputs, value_rows
from engine.sparse_formats._numbers import (
    BLOCK,
    as_bytes,
    by_inputs,
    filled,
    input_stride,
    side_by_side,
)

SPREAD = False


def pack_rows(weight: Weight) -> NDArray[np.uint8]:
    """Rows of int8, then a float16 a block."""
    q, scales = _unpacked(weight)
    return side_by_side(as_bytes(filled(q, BLOCK)), as_bytes(filled(scales, BLOCK)))


def pack_inputs(weight: Weight) -> NDArray[np.uint8]:
    """Blocks of 32 inputs behind a float16 an output."""
    q, scales = _unpacked(weight)
    return by_inputs(as_bytes(filled(q, BLOCK).T), scales)


def stride(tiles: int) -> int:
    """Bytes of an input."""
    return input_stride(BLOCK * tiles)


def _unpacked(weight: Weight) -> tuple[NDArray[np.int8], NDArray[np.float16]]:
    """q (16 groups, 32 blocks), scales (16 groups, blocks)."""
    n_groups, n_blocks, _ = weight.data.shape
    scales = np.ascontiguousarray(weight.data[:, :, :32]).view(np.float16).transpose(0, 2, 1)
    runs = (weight.data[:, :, 32:] ^ np.uint8(0x80)).reshape(n_groups, n_blocks, 8, LANES, 4)
    q = runs.transpose(0, 3, 1, 2, 4).reshape(LANES * n_groups, n_blocks * BLOCK)
    return q.view(np.int8), scales.reshape(LANES * n_groups, n_blocks)


@block
def _high(at):
    return simd.load_i8(at + 16)


@callback(ROWS)
def rows(weight, stride, blocks, rows, n, x, out):
    value_rows(simd.load_i8, 1, True, weight, stride, blocks, rows, n, x, out)


@callback(INPUTS)
def inputs(weight, stride, tiles, blocks, active, first, last, out):
    skip_inputs(simd.load_i8, _high, 32, 1, 0, 0,
                weight, stride, tiles, blocks, active, first, last, out)  # fmt: skip
