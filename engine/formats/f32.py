"""float32: the values as they are; the reference that the others are compared with.

A block is [32 columns][16 rows]; activations stay float32.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.kernels import simd
from engine.kernels.compiler import callback
from engine.kernels.layout import COLUMNS, ROWS, StoredTensor, pack_floats, padded, unpack_floats
from engine.kernels.matmul import MATMUL, ROW, matmul_floats, row_of_floats

WIDTH = 4
BLOCK_BYTES = ROWS * COLUMNS * WIDTH
INT8 = False
NATIVE = frozenset({"F32"})


def pack(tensor: StoredTensor, start: int, stop: int) -> NDArray[np.uint8]:
    """Rows [start, stop) -> uint8 (groups, blocks, BLOCK_BYTES)."""
    return quantize(padded(tensor.float32(start, stop)))


def quantize(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """float32 (16 a, 32 b) -> uint8 (a, b, BLOCK_BYTES)."""
    return pack_floats(np.asarray(values, np.float32))


def dequantize(packed: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 (a, b, BLOCK_BYTES) -> float32 (16 a, 32 b)."""
    return unpack_floats(packed, np.float32)


@callback(MATMUL)
def matmul(weight, first, last, blocks, x, x_stride, tokens, out, out_stride):
    matmul_floats(simd.load_f32, WIDTH, weight, first, last, blocks,
                  x, x_stride, tokens, out, out_stride)  # fmt: skip


@callback(ROW)
def row(weight, blocks, index, out):
    row_of_floats(simd.get_f32, WIDTH, weight, blocks, index, out)
