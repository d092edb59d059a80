"""Loads of pieces that are smaller than a vector, for weights that lie row by row or by inputs."""

from __future__ import annotations

from llvmlite import ir
from numba import types

from engine.kernels import float16, vectors
from engine.kernels.vectors import F32x16, I32x16, constant, load, store

_U8x16 = ir.VectorType(vectors.i8, 16)


def _sixteen_bytes(builder, address):
    return builder.zext(load(builder, address, _U8x16), I32x16.llvm)


@vectors.operation(F32x16, types.int64)
def load_low_nibbles(builder, address):
    """The low halves of 16 bytes, as float32."""
    low = builder.and_(_sixteen_bytes(builder, address), constant(I32x16.llvm, 15))
    return builder.sitofp(low, F32x16.llvm)


@vectors.operation(F32x16, types.int64)
def load_high_nibbles(builder, address):
    """The high halves of 16 bytes, as float32."""
    high = builder.lshr(_sixteen_bytes(builder, address), constant(I32x16.llvm, 4))
    return builder.sitofp(high, F32x16.llvm)


@vectors.operation(F32x16, types.int64)
def load_f16_by_four(builder, address):
    """4 float16 as float32, each in four lanes."""
    words = load(builder, address, ir.VectorType(vectors.i16, 4))
    lanes = ir.Constant(
        ir.VectorType(vectors.i32, 16), [vectors.i32(lane >> 2) for lane in range(16)]
    )
    undefined = ir.Constant(words.type, ir.Undefined)
    return float16.widen(builder, builder.shuffle_vector(words, undefined, lanes))


@vectors.operation(types.void, types.int64, types.int64)
def copy_16(builder, source, to):
    """16 bytes from one address to another."""
    store(builder, to, load(builder, source, _U8x16))


@vectors.operation(types.void, types.int64, types.int64)
def set_i64(builder, address, value):
    """One int64."""
    store(builder, address, value)


@vectors.operation(F32x16, F32x16, F32x16, F32x16)
def where_above(builder, size, threshold, value):
    """value where size > threshold, else 0."""
    above = builder.fcmp_ordered(">", size, threshold)
    return builder.select(above, value, constant(F32x16.llvm, 0.0))
