"""Numbers of 8 bits that are computed rather than looked up: AdamW's states, in vectors.

A code stands for a floating point number of few bits, relative to the largest of its block. m: a
sign and 127 magnitudes over 16 binades, 0 is zero. v: 255 magnitudes over 24 binades, 0 is zero.
A float's bits, as an integer, grow evenly within a binade: steps between codes are steps of bits.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types

from engine.kernels import vectors
from engine.kernels.vectors import F32x16, I32x16, call, constant, i8, i32, load, operation

ONE = 0x3F800000  # the bits of 1.0
M_STEP, V_STEP = 1 << 20, 3 << 18
M_BASE, V_BASE = ONE - 127 * M_STEP, ONE - 255 * V_STEP
_LEAST_M = float(np.int32(M_BASE + M_STEP).view(np.float32))


def _whole(value):
    return constant(I32x16.llvm, value)


def _bits(builder, value):
    return builder.bitcast(value, I32x16.llvm)


def _bytes(builder, address):
    return builder.zext(load(builder, address, ir.VectorType(i8, 16)), I32x16.llvm)


def _where(builder, compare, a, b, value, other):
    return builder.select(builder.icmp_signed(compare, a, b), value, other)


@operation(F32x16, types.int64)
def decode_m(builder, address):
    """16 codes -> numbers in [-1, 1]."""
    code = _bytes(builder, address)
    steps = builder.and_(code, _whole(127))
    size = builder.add(builder.shl(steps, _whole(20)), _whole(M_BASE))
    size = _where(builder, "!=", steps, _whole(0), size, _whole(0))
    sign = builder.shl(builder.lshr(code, _whole(7)), _whole(31))
    return builder.bitcast(builder.or_(size, sign), F32x16.llvm)


@operation(F32x16, types.int64)
def decode_v(builder, address):
    """16 codes -> numbers in [0, 1]."""
    code = _bytes(builder, address)
    size = builder.add(builder.mul(code, _whole(V_STEP)), _whole(V_BASE))
    size = _where(builder, "!=", code, _whole(0), size, _whole(0))
    return builder.bitcast(size, F32x16.llvm)


@operation(I32x16, F32x16, F32x16, I32x16)
def encode_m(builder, m, per_top, noise):
    """m / top, of at most 1, to one of the two codes beside it, by the low 16 bits of noise."""
    noise = builder.and_(noise, _whole(0xFFFF))
    size = builder.fmul(call(builder, "llvm.fabs.v16f32", F32x16.llvm, [m]), per_top)
    above = builder.sub(_bits(builder, size), _whole(M_BASE))
    steps = builder.lshr(builder.add(above, builder.shl(noise, _whole(4))), _whole(20))
    # below the least size the choice is between it and zero: 1 + size / least has 23 bits of it
    share = builder.fmul(size, constant(F32x16.llvm, 1 / _LEAST_M))
    share = _bits(builder, builder.fadd(share, constant(F32x16.llvm, 1.0)))
    rest = builder.add(builder.sub(share, _whole(ONE)), builder.shl(noise, _whole(7)))
    rest = builder.lshr(rest, _whole(23))
    code = _where(builder, ">=", above, _whole(M_STEP), steps, rest)
    sign = builder.lshr(_bits(builder, m), _whole(31))
    return builder.or_(code, builder.shl(sign, _whole(7)))


@operation(I32x16, F32x16, F32x16, I32x16)
def encode_v(builder, v, per_top, noise):
    """v / top, of 0 to 1, likewise by the high 16 bits of noise; 0 for zero only."""
    noise = builder.lshr(noise, _whole(16))
    above = builder.sub(_bits(builder, builder.fmul(v, per_top)), _whole(V_BASE))
    above = _where(builder, ">", above, _whole(0), above, _whole(0))
    steps = builder.add(above, builder.mul(noise, _whole(V_STEP >> 16)))
    thirds = builder.lshr(steps, _whole(18))
    code = builder.lshr(builder.mul(thirds, _whole(43691)), _whole(17))
    code = _where(builder, ">", code, _whole(1), code, _whole(1))
    # the bits of what is no zero are a larger number
    return _where(builder, "<", code, _bits(builder, v), code, _bits(builder, v))


@operation(I32x16, types.int64, types.uint32)
def noises(builder, place, salt):
    """32 bits that look random for each of 16 places."""
    lanes = ir.Constant(I32x16.llvm, [i32(lane) for lane in range(16)])
    h = builder.add(vectors.broadcast(builder, I32x16.llvm, builder.trunc(place, i32)), lanes)
    h = builder.mul(h, _whole(0x9E3779B1))
    h = builder.add(h, vectors.broadcast(builder, I32x16.llvm, salt))
    h = builder.xor(h, builder.lshr(h, _whole(15)))
    h = builder.mul(h, _whole(0x85EBCA77))
    return builder.xor(h, builder.lshr(h, _whole(13)))


@operation(F32x16, F32x16)
def square_root(builder, a):
    return call(builder, "llvm.sqrt.v16f32", F32x16.llvm, [a])
