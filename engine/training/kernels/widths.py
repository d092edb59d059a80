"""Activations of two widths, and the vectors' parts that rotation needs.

A width is (load, store, bytes of a value); kernels are written once and compiled for both.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types

from engine.kernels import simd, vectors
from engine.kernels.compiler import block
from engine.kernels.vectors import F32x16, I32x16, constant, operation, store


@operation(types.void, types.int64, F32x16)
def store_bf16(builder, address, value):
    """16 float32, rounded to the nearest bfloat16, ties to even."""
    bits = builder.bitcast(value, I32x16.llvm)
    odd = builder.and_(builder.lshr(bits, constant(I32x16.llvm, 16)), constant(I32x16.llvm, 1))
    rounded = builder.add(bits, builder.add(odd, constant(I32x16.llvm, 0x7FFF)))
    words = builder.lshr(rounded, constant(I32x16.llvm, 16))
    store(builder, address, builder.trunc(words, ir.VectorType(vectors.i16, 16)))


@block
def load_4(address):
    return simd.load_f32(address)


@block
def store_4(address, value):
    simd.store_f32(address, value)


@block
def load_2(address):
    return simd.load_bf16(address)


@block
def store_2(address, value):
    store_bf16(address, value)


def _picked(first, step):
    """An emitter of 16 lanes of two vectors, a then b: first, first + step …"""
    lanes = [(first + step * i) for i in range(16)]
    return _shuffled(lanes)


def _shuffled(lanes):
    mask = ir.Constant(ir.VectorType(vectors.i32, 16), [vectors.i32(lane) for lane in lanes])

    def emit(builder, a, b):
        return builder.shuffle_vector(a, b, mask)

    return emit


# of the 32 values a, b: those at even places, at odd places; and the way back
evens = operation(F32x16, F32x16, F32x16)(_picked(0, 2))
odds = operation(F32x16, F32x16, F32x16)(_picked(1, 2))
_PAIRS = [lane for i in range(16) for lane in (i, 16 + i)]
paired_low = operation(F32x16, F32x16, F32x16)(_shuffled(_PAIRS[:16]))
paired_high = operation(F32x16, F32x16, F32x16)(_shuffled(_PAIRS[16:]))
