"""float16 to float32 and back, also on CPUs without instructions for it.

There LLVM would call a C function that is not part of every process, and end this one. Values are
those of IEEE 754: subnormal numbers, infinities and rounding to even included; what is not a number
stays one.
"""

from __future__ import annotations

from llvmlite import ir

from engine.kernels import cpu
from engine.kernels.vectors import constant, f16, f32, i16, i32

_INFINITY, _SIGN = 0x7F800000, 0x80000000
_TOO_LARGE = 0x47800000  # 2**16: rounded to infinity, as what float16 rounds up to 2**16 is
_NORMAL = 0x38800000  # 2**-14, the least normal float16
_HALF = 0x3F000000  # 0.5: adding it leaves a subnormal float16 in the last bits


def widen(builder, words):
    """The float16 whose bits are `words` (int16, one or a vector of them) as float32."""
    if cpu.cpu().float16:
        return builder.fpext(builder.bitcast(words, _like(words, f16)), _like(words, f32))
    return _widen(builder, words)


def narrow(builder, values):
    """float32 (one or a vector of them) as the bits of float16, int16, rounded to nearest even."""
    if cpu.cpu().float16:
        return builder.bitcast(builder.fptrunc(values, _like(values, f16)), _like(values, i16))
    return _narrow(builder, values)


def _widen(builder, words):
    int32, float32 = _like(words, i32), _like(words, f32)
    bits = builder.zext(words, int32)
    size = builder.and_(bits, constant(int32, 0x7FFF))
    # the exponent's bias is 15 there and 127 here; a product also makes subnormal numbers right
    shifted = builder.bitcast(builder.shl(size, constant(int32, 13)), float32)
    value = builder.fmul(shifted, constant(float32, 2.0**112))
    finite = builder.icmp_unsigned("<", size, constant(int32, 0x7C00))
    top = builder.select(finite, constant(int32, 0), constant(int32, _INFINITY))
    sign = builder.shl(builder.and_(bits, constant(int32, 0x8000)), constant(int32, 16))
    bits = builder.or_(builder.bitcast(value, int32), builder.or_(top, sign))
    return builder.bitcast(bits, float32)


def _narrow(builder, values):
    int32, float32 = _like(values, i32), _like(values, f32)
    bits = builder.bitcast(values, int32)
    size = builder.and_(bits, constant(int32, _SIGN - 1))

    # 13 bits go: half of the last one that stays, and a tie goes to the even neighbour
    odd = builder.and_(builder.lshr(size, constant(int32, 13)), constant(int32, 1))
    rebased = builder.sub(size, constant(int32, 112 << 23))
    rounded = builder.add(builder.add(rebased, constant(int32, 0xFFF)), odd)
    normal = builder.lshr(rounded, constant(int32, 13))

    half = builder.bitcast(constant(int32, _HALF), float32)
    subnormal = builder.sub(
        builder.bitcast(builder.fadd(builder.bitcast(size, float32), half), int32),
        constant(int32, _HALF),
    )
    small = builder.icmp_unsigned("<", size, constant(int32, _NORMAL))
    result = builder.select(small, subnormal, normal)

    is_nan = builder.icmp_unsigned(">", size, constant(int32, _INFINITY))
    top = builder.select(is_nan, constant(int32, 0x7E00), constant(int32, 0x7C00))
    large = builder.icmp_unsigned(">=", size, constant(int32, _TOO_LARGE))
    result = builder.select(large, top, result)
    sign = builder.lshr(builder.and_(bits, constant(int32, _SIGN)), constant(int32, 16))
    return builder.trunc(builder.or_(result, sign), _like(values, i16))


def _like(value, element):
    """`element`, or a vector of as many as `value` has."""
    if isinstance(value.type, ir.VectorType):
        return ir.VectorType(element, value.type.count)
    return element
