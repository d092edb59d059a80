"""Products of bytes, summed by fours, in the instructions that the CPU has; of int16, by twos.

An int32 lane faces four bytes of each operand, or two int16:

    dot4(total, unsigned, signed)[i] = total[i] + sum over j < 4 of
                                       unsigned[4 i + j] * signed[4 i + j]
    dot2(total, a, b)[i] = total[i] + a[2 i] b[2 i] + a[2 i + 1] b[2 i + 1]

in exact integers, so every CPU gives the same. For weights of four bits there is a quicker way on
some: dot_nibbles, whose running totals only nibble_sums can read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from llvmlite import ir
from numba import types

from engine.kernels import cpu
from engine.kernels.vectors import (
    I32x16,
    U8x64,
    broadcast,
    call,
    constant,
    i16,
    joined,
    operation,
    part,
)

_Emit = Callable[..., Any]  # (builder, *values) -> value

_I16x32 = ir.VectorType(i16, 32)


@dataclass(frozen=True)
class Products:
    """How one instruction set emits the four operations."""

    dot4: _Emit
    dot_nibbles: _Emit
    nibble_sums: _Emit
    dot2: _Emit


def _by_parts(builder, name, result, args, n_parts):
    """An instruction on registers that hold one n-th of a vector."""
    narrow = ir.VectorType(result.element, result.count // n_parts)
    parts = [
        call(builder, name, narrow, [part(builder, arg, index, n_parts) for arg in args])
        for index in range(n_parts)
    ]
    return joined(builder, parts)


def _sum_of_two(builder, a, b):
    return builder.add(a, b)


# ---- dot products in one instruction ------------------------------------------------------------


def _vpdpbusd(n_parts, builder, total, unsigned, signed):
    # LLVM 22 takes bytes here, older ones took int32, and 22 still knows the older form
    words = [builder.bitcast(value, I32x16.llvm) for value in (unsigned, signed)]
    name = f"llvm.x86.avx512.vpdpbusd.{512 // n_parts}"
    return _by_parts(builder, name, I32x16.llvm, [total, *words], n_parts)


def _neon(name, builder, total, a, b):
    name = f"llvm.aarch64.neon.{name}.v4i32.v16i8"
    return _by_parts(builder, name, I32x16.llvm, [total, a, b], 4)


def _sdot_of_any(builder, total, unsigned, signed):
    """u s = (u - 128) s + 64 s + 64 s, since both sides of sdot are signed."""
    sdot = partial(_neon, "sdot", builder)
    half = constant(U8x64.llvm, 64)
    rest = sdot(sdot(constant(I32x16.llvm, 0), half, signed), half, signed)
    # a broadcast operand lets LLVM make `rest` once for all four registers
    shifted = builder.xor(unsigned, constant(U8x64.llvm, 128))
    return builder.add(sdot(total, shifted, signed), rest)


# ---- x86 without them ---------------------------------------------------------------------------

# bits -> products of bytes as int16, pairs added, saturating; products of int16, pairs added
_PMADDUBSW = {
    512: "llvm.x86.avx512.pmaddubs.w.512",
    256: "llvm.x86.avx2.pmadd.ub.sw",
    128: "llvm.x86.ssse3.pmadd.ub.sw.128",
}
_PMADDWD = {
    512: "llvm.x86.avx512.pmaddw.d.512",
    256: "llvm.x86.avx2.pmadd.wd",
    128: "llvm.x86.sse2.pmadd.wd",
}


def _pmaddwd(bits, builder, a, b):
    """a and b as int16, however they are typed -> int32."""
    words = [builder.bitcast(value, _I16x32) for value in (a, b)]
    return _by_parts(builder, _PMADDWD[bits], I32x16.llvm, words, 512 // bits)


def _even_and_odd(builder, unsigned, signed):
    """The bytes as int16: two vectors of the even ones, two of the odd ones."""
    u, s = builder.bitcast(unsigned, _I16x32), builder.bitcast(signed, _I16x32)
    byte = constant(_I16x32, 8)
    even = builder.and_(u, constant(_I16x32, 255)), builder.ashr(builder.shl(s, byte), byte)
    return even, (builder.lshr(u, byte), builder.ashr(s, byte))


def _madd_pairs(bits, builder, total, a, b):
    return builder.add(total, _pmaddwd(bits, builder, a, b))


def _madd_words(bits, builder, total, unsigned, signed):
    # vpmaddubsw would be one step less, but 2 * 255 * 127 saturates its int16
    for u, s in _even_and_odd(builder, unsigned, signed):
        total = builder.add(total, _pmaddwd(bits, builder, u, s))
    return total


def _madd_nibbles(bits, builder, total, nibbles, signed):
    """The total holds int16 pairs: eight products of 15 * 128 * 2 still fit."""
    parts = 512 // bits
    products = _by_parts(builder, _PMADDUBSW[bits], _I16x32, [nibbles, signed], parts)
    return builder.bitcast(builder.add(builder.bitcast(total, _I16x32), products), I32x16.llvm)


def _madd_nibble_sums(bits, builder, a, b):
    pairs = builder.add(builder.bitcast(a, _I16x32), builder.bitcast(b, _I16x32))
    return _pmaddwd(bits, builder, pairs, constant(_I16x32, 1))


# ---- everything else ----------------------------------------------------------------------------


def _plain(builder, total, unsigned, signed):
    """Products of bytes fit int16 (255 * -128 > -2**15), their sums need int32."""
    for u, s in _even_and_odd(builder, unsigned, signed):
        pairs = builder.bitcast(builder.mul(u, s), I32x16.llvm)
        total = builder.add(total, _add_pairs(builder, pairs))
    return total


def _plain_nibbles(builder, total, nibbles, signed):
    """Here the sums, too, fit int16: the total holds the even and the odd words of a lane."""
    pairs = builder.bitcast(total, _I16x32)
    for u, s in _even_and_odd(builder, nibbles, signed):
        pairs = builder.add(pairs, builder.mul(u, s))
    return builder.bitcast(pairs, I32x16.llvm)


def _plain_nibble_sums(builder, a, b):
    pairs = builder.add(builder.bitcast(a, _I16x32), builder.bitcast(b, _I16x32))
    return _add_pairs(builder, builder.bitcast(pairs, I32x16.llvm))


def _plain_pairs(builder, total, a, b):
    half = constant(I32x16.llvm, 16)
    low = builder.mul(*(builder.ashr(builder.shl(value, half), half) for value in (a, b)))
    high = builder.mul(*(builder.ashr(value, half) for value in (a, b)))
    return builder.add(total, builder.add(low, high))


def _add_pairs(builder, pairs):
    """The two int16 in each int32, added."""
    half = constant(I32x16.llvm, 16)
    return builder.add(builder.ashr(builder.shl(pairs, half), half), builder.ashr(pairs, half))


# ---- the choice ---------------------------------------------------------------------------------


def _exact(dot4: _Emit, nibbles: _Emit | None = None, dot2: _Emit = _plain_pairs) -> Products:
    """Running totals of nibbles are int32 like any other."""
    return Products(dot4, nibbles or dot4, _sum_of_two, dot2)


def _multiply_add(bits: int) -> Products:
    emitters = (_madd_words, _madd_nibbles, _madd_nibble_sums, _madd_pairs)
    return Products(*(partial(emit, bits) for emit in emitters))


PRODUCTS = {
    "avx512vnni": _exact(partial(_vpdpbusd, 1), dot2=partial(_madd_pairs, 512)),
    "avxvnni": _exact(partial(_vpdpbusd, 2), dot2=partial(_madd_pairs, 256)),
    "avx512bw": _multiply_add(512),
    "avx2": _multiply_add(256),
    "ssse3": _multiply_add(128),
    "sse2": _exact(partial(_madd_words, 128), dot2=partial(_madd_pairs, 128)),
    "neon-i8mm": _exact(partial(_neon, "usdot")),
    "neon-dotprod": _exact(_sdot_of_any, partial(_neon, "sdot")),
    cpu.GENERIC: Products(_plain, _plain_nibbles, _plain_nibble_sums, _plain_pairs),
}


def _chosen() -> Products:
    return PRODUCTS[cpu.instructions()]


@operation(I32x16, I32x16, U8x64, U8x64)
def dot4(builder, total, unsigned, signed):
    """total + four products a lane; `unsigned` any uint8, `signed` any int8."""
    return _chosen().dot4(builder, total, unsigned, signed)


@operation(I32x16, I32x16, U8x64, U8x64)
def dot_nibbles(builder, total, nibbles, signed):
    """A running total that starts at zero; `nibbles` are 0 … 15, `signed` any int8.

    At most four products on one total, and only nibble_sums can read it: some CPUs keep two int16
    in a lane.
    """
    return _chosen().dot_nibbles(builder, total, nibbles, signed)


@operation(I32x16, I32x16, I32x16)
def nibble_sums(builder, a, b):
    """The sum of two running totals of dot_nibbles, as int32."""
    return _chosen().nibble_sums(builder, a, b)


@operation(I32x16, I32x16, I32x16, I32x16)
def dot2(builder, total, a, b):
    """total + two products a lane; a and b hold two int16 in each, and no sum leaves int32."""
    return _chosen().dot2(builder, total, a, b)


@operation(U8x64, U8x64)
def low_nibbles(builder, a):
    return builder.and_(a, constant(U8x64.llvm, 15))


@operation(U8x64, U8x64)
def high_nibbles(builder, a):
    words = builder.lshr(builder.bitcast(a, _I16x32), constant(_I16x32, 4))
    return builder.and_(builder.bitcast(words, U8x64.llvm), constant(U8x64.llvm, 15))


@operation(U8x64, U8x64, types.int64)
def two_bits(builder, a, quarter):
    """Bits 2 quarter and 2 quarter + 1 of every byte; quarter 0 … 3."""
    shift = builder.shl(builder.trunc(quarter, _I16x32.element), ir.Constant(_I16x32.element, 1))
    words = builder.lshr(builder.bitcast(a, _I16x32), broadcast(builder, _I16x32, shift))
    return builder.and_(builder.bitcast(words, U8x64.llvm), constant(U8x64.llvm, 3))
