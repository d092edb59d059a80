"""Blocks of 4 bits to activations' dtype: a whole matrix at a time, used and thrown away.

Items are rows. A row is blocks of 20 bytes for 32 columns, as GGUF's Q4_1 has them: float16 scale,
float16 offset, 16 bytes of which the low halves are the first 16 columns, the high ones the rest.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types

from engine.kernels import simd, vectors
from engine.kernels.compiler import callback, kernel
from engine.kernels.vectors import F32x16, I32x16, constant, operation
from engine.training.kernels import widths
from engine.training.kernels.tasks import TASK, claim, whole

BLOCK_BYTES, COLUMNS = 20, 32


def _nibbles(builder, address):
    """16 bytes as int32."""
    return builder.zext(vectors.load(builder, address, ir.VectorType(vectors.i8, 16)), I32x16.llvm)


@operation(F32x16, types.int64)
def low_halves(builder, address):
    """The low 4 bits of 16 bytes, as float32."""
    return builder.sitofp(
        builder.and_(_nibbles(builder, address), constant(I32x16.llvm, 15)), F32x16.llvm
    )


@operation(F32x16, types.int64)
def high_halves(builder, address):
    """The high 4 bits of 16 bytes, as float32."""
    return builder.sitofp(
        builder.lshr(_nibbles(builder, address), constant(I32x16.llvm, 4)), F32x16.llvm
    )


@kernel
def _dequantize(store, size, block):
    """blocks (N, K / 32 blocks) -> values (N, K) at `stride` bytes a row."""
    blocks, values, stride, n_blocks = (
        whole(block, 0), whole(block, 1), whole(block, 2), whole(block, 3),
    )  # fmt: skip
    run, n_rows = whole(block, 4), whole(block, 5)
    item = claim(block)
    while item >= 0:
        for row in range(run * item, min(run * (item + 1), n_rows)):
            at, out = blocks + BLOCK_BYTES * n_blocks * row, values + stride * row
            for _ in range(n_blocks):
                scale, offset = simd.splat(simd.get_f16(at)), simd.splat(simd.get_f16(at + 2))
                store(out, simd.fma(low_halves(at + 4), scale, offset))
                store(out + 16 * size, simd.fma(high_halves(at + 4), scale, offset))
                at += BLOCK_BYTES
                out += COLUMNS * size
        item = claim(block)


@callback(TASK)
def dequantize_4(block):
    _dequantize(widths.store_4, 4, block)


@callback(TASK)
def dequantize_2(block):
    _dequantize(widths.store_2, 2, block)
