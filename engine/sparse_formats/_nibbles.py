"""What the copies of 4-bit matrices share: numbers 0 … 15, and scales and offsets a block."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.formats import Weight
from engine.kernels import nibbles
from engine.sparse_formats._numbers import (
    BLOCK,
    aligned,
    as_bytes,
    by_inputs,
    filled,
    halves,
    input_stride,
    side_by_side,
)


def pack_rows(weight: Weight, numbers_a_block: int) -> NDArray[np.uint8]:
    """Rows of nibbles, then so many float16 a block."""
    q, numbers = _unpacked(weight, numbers_a_block)
    # four blocks make a run
    runs = halves(filled(q, BLOCK, 4).reshape(aligned(len(q), BLOCK), -1))
    return side_by_side(runs, *(as_bytes(filled(each, BLOCK, 4)) for each in numbers))


def pack_inputs(weight: Weight, numbers_a_block: int) -> NDArray[np.uint8]:
    """Blocks of 32 inputs behind so many float16 an output."""
    q, numbers = _unpacked(weight, numbers_a_block)
    return by_inputs(halves(filled(q.reshape(len(q), -1), BLOCK).T), *numbers)


def stride(tiles: int) -> int:
    """Bytes of an input."""
    return input_stride(16 * tiles)


def _unpacked(
    weight: Weight, numbers_a_block: int
) -> tuple[NDArray[np.uint8], list[NDArray[np.float16]]]:
    """q (16 groups, blocks, 32) and numbers (16 groups, blocks) each."""
    n_bytes = 32 * numbers_a_block
    n_groups, n_blocks, _ = weight.data.shape
    packed = np.ascontiguousarray(weight.data[:, :, :n_bytes]).view(np.float16)
    by_row = packed.reshape(n_groups, n_blocks, numbers_a_block, 16).transpose(2, 0, 3, 1)
    numbers = [each.reshape(16 * n_groups, n_blocks) for each in by_row]
    return nibbles.unpack(weight.data[:, :, n_bytes:]), numbers
