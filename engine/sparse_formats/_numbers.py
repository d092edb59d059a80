"""What the packing of copies shares: numbers in rows and by inputs, as bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
LINE = 64
BLOCK = 32  # columns or outputs


def aligned(n: int, unit: int = LINE) -> int:
    """n rounded up to whole units."""
    return -(-n // unit) * unit


def input_stride(n_bytes: int) -> int:
    """n_bytes of an input in whole lines, an odd number of them: with a power of two, the same
    line of all inputs would have to share a few places of the first cache."""
    return (aligned(n_bytes) // LINE | 1) * LINE


def filled(values: NDArray[Any], rows: int, columns: int = 1) -> NDArray[Any]:
    """A matrix with zeros behind, to multiples of so many rows and columns."""
    missing = [
        (0, aligned(n, unit) - n) for n, unit in zip(values.shape, (rows, columns), strict=False)
    ]
    missing += [(0, 0)] * (values.ndim - 2)
    return np.pad(values, missing)


def as_bytes(values: NDArray[Any]) -> Bytes:
    """(rows, n) of any dtype -> uint8 (rows, bytes)."""
    return np.ascontiguousarray(values).view(np.uint8).reshape(len(values), -1)


def side_by_side(*parts: Bytes) -> Bytes:
    """Bytes of rows, one part after another, to whole lines."""
    whole = np.concatenate(parts, axis=1)
    return np.pad(whole, ((0, 0), (0, aligned(whole.shape[1]) - whole.shape[1])))


def halves(q: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """q in 0 … 15 (…, 32 n) -> (…, 16 n): byte i of 32 has number i low and 16 + i high."""
    parts = q.reshape(*q.shape[:-1], -1, 2, BLOCK // 2)
    packed: Bytes = parts[..., 0, :] | (parts[..., 1, :] << np.uint8(4))
    return packed.reshape(*q.shape[:-1], -1)


def by_inputs(inputs: Bytes, *numbers: NDArray[np.float16]) -> Bytes:
    """Blocks of 32 inputs behind their numbers a block and output.

    inputs   uint8 (32 blocks, bytes of an input)
    numbers  (n_out, blocks) each
    """
    n_blocks = len(inputs) // BLOCK
    rows = np.pad(inputs, ((0, 0), (0, input_stride(inputs.shape[1]) - inputs.shape[1])))
    heads = [as_bytes(filled(each, BLOCK).T) for each in numbers]
    return np.concatenate([*heads, rows.reshape(n_blocks, -1)], axis=1)
