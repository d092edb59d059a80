"""SIMD values for Numba: three vector types, and the loads, stores and arithmetic on them.

A vector is an ordinary local variable in kernel code and lives in a register. 512 bits is the width
in the code; LLVM splits it where registers are narrower. Memory is named by addresses, plain
integers in bytes, because a kernel reads several number types out of one packed block.

    F32x16   sixteen float32        I32x16   sixteen int32        U8x64   sixty-four bytes
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.extending import intrinsic, register_model

from engine.kernels.cpu import has_vnni

_i8, _i16, _i32, _i64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_f16, _f32 = ir.HalfType(), ir.FloatType()


def _vector_type(name, element, count):
    """A Numba type whose values are LLVM vectors."""
    cls = type(name, (types.Type,), {"llvm": ir.VectorType(element, count)})

    @register_model(cls)
    class Model(models.PrimitiveModel):
        def __init__(self, manager, numba_type):
            super().__init__(manager, numba_type, numba_type.llvm)

    return cls(name=name)


F32x16 = _vector_type("F32x16", _f32, 16)
I32x16 = _vector_type("I32x16", _i32, 16)
U8x64 = _vector_type("U8x64", _i8, 64)

_U16x32 = ir.VectorType(_i16, 32)


# ---- emitting LLVM ------------------------------------------------------------------------------


def _constant(llvm_type, value):
    return ir.Constant(llvm_type, [ir.Constant(llvm_type.element, value)] * llvm_type.count)


def _broadcast(builder, llvm_type, scalar):
    undefined = ir.Constant(llvm_type, ir.Undefined)
    first = builder.insert_element(undefined, scalar, _i32(0))
    lanes = ir.Constant(ir.VectorType(_i32, llvm_type.count), [_i32(0)] * llvm_type.count)
    return builder.shuffle_vector(first, undefined, lanes)


def _load(builder, address, llvm_type):
    value = builder.load(builder.inttoptr(address, llvm_type.as_pointer()))
    value.align = 1
    return value


def _store(builder, address, value):
    builder.store(value, builder.inttoptr(address, value.type.as_pointer())).align = 1


def _call(builder, name, result, args):
    signature = ir.FunctionType(result, [arg.type for arg in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, signature, name), args)


def _operation(result, *arguments):
    """Decorator: an LLVM emitter `f(builder, *values)` becomes a function for kernels."""

    def wrap(emit):
        # Numba counts an intrinsic's parameters, so each arity is spelled out
        def codegen(context, builder, signature, args):
            value = emit(builder, *args)
            return context.get_dummy_value() if value is None else value

        signature = result(*arguments)
        by_arity = {
            0: lambda typing: (signature, codegen),
            1: lambda typing, a: (signature, codegen),
            2: lambda typing, a, b: (signature, codegen),
            3: lambda typing, a, b, c: (signature, codegen),
        }
        template = by_arity[len(arguments)]
        template.__name__ = emit.__name__
        template.__doc__ = emit.__doc__
        return intrinsic(template)

    return wrap


# ---- memory -------------------------------------------------------------------------------------


@intrinsic
def address_of(typing, array):
    """Address of an array's first element."""

    def codegen(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.ptrtoint(data, _i64)

    return types.int64(array), codegen


@_operation(F32x16, types.int64)
def load_f32(builder, address):
    """16 float32."""
    return _load(builder, address, F32x16.llvm)


@_operation(F32x16, types.int64)
def load_f16(builder, address):
    """16 float16, as float32."""
    return builder.fpext(_load(builder, address, ir.VectorType(_f16, 16)), F32x16.llvm)


@_operation(F32x16, types.int64)
def load_bf16(builder, address):
    """16 bfloat16, as float32."""
    words = builder.zext(_load(builder, address, ir.VectorType(_i16, 16)), I32x16.llvm)
    return builder.bitcast(builder.shl(words, _constant(I32x16.llvm, 16)), F32x16.llvm)


@_operation(U8x64, types.int64)
def load_u8(builder, address):
    """64 bytes."""
    return _load(builder, address, U8x64.llvm)


@_operation(U8x64, types.int64)
def load_u8_broadcast(builder, address):
    """4 bytes, repeated 16 times."""
    return builder.bitcast(
        _broadcast(builder, I32x16.llvm, _load(builder, address, _i32)), U8x64.llvm
    )


@_operation(types.void, types.int64, F32x16)
def store_f32(builder, address, value):
    """16 float32."""
    _store(builder, address, value)


@_operation(types.void, types.int64, I32x16)
def store_i8(builder, address, value):
    """16 int32 as 16 int8; values must fit."""
    _store(builder, address, builder.trunc(value, ir.VectorType(_i8, 16)))


@_operation(types.float32, types.int64)
def get_f32(builder, address):
    """One float32."""
    return _load(builder, address, _f32)


@_operation(types.float32, types.int64)
def get_f16(builder, address):
    """One float16, as float32."""
    return builder.fpext(_load(builder, address, _f16), _f32)


@_operation(types.float32, types.int64)
def get_bf16(builder, address):
    """One bfloat16, as float32."""
    word = builder.zext(_load(builder, address, _i16), _i32)
    return builder.bitcast(builder.shl(word, _i32(16)), _f32)


@_operation(types.int32, types.int64)
def get_i32(builder, address):
    """One int32."""
    return _load(builder, address, _i32)


@_operation(types.int64, types.int64)
def get_i64(builder, address):
    """One int64."""
    return _load(builder, address, _i64)


@_operation(types.int32, types.int64)
def get_u8(builder, address):
    """One byte, as int32."""
    return builder.zext(_load(builder, address, _i8), _i32)


@_operation(types.void, types.int64, types.float32)
def set_f32(builder, address, value):
    """One float32."""
    _store(builder, address, value)


@_operation(types.void, types.int64, types.int32)
def set_i32(builder, address, value):
    """One int32."""
    _store(builder, address, value)


@_operation(types.void, types.int64)
def prefetch(builder, address):
    """Ask for the cache line at this address; any address is allowed."""
    pointer = builder.inttoptr(address, _i8.as_pointer())
    _call(builder, "llvm.prefetch.p0", ir.VoidType(), [pointer, _i32(0), _i32(3), _i32(1)])


# ---- float32 ------------------------------------------------------------------------------------


@_operation(F32x16)
def zero_f32(builder):
    return _constant(F32x16.llvm, 0.0)


@_operation(F32x16, types.float32)
def splat(builder, value):
    """The same number in all lanes."""
    return _broadcast(builder, F32x16.llvm, value)


@_operation(F32x16, F32x16, F32x16)
def add(builder, a, b):
    return builder.fadd(a, b)


@_operation(F32x16, F32x16, F32x16)
def sub(builder, a, b):
    return builder.fsub(a, b)


@_operation(F32x16, F32x16, F32x16)
def mul(builder, a, b):
    return builder.fmul(a, b)


@_operation(F32x16, F32x16, F32x16)
def div(builder, a, b):
    return builder.fdiv(a, b)


@_operation(F32x16, F32x16, F32x16, F32x16)
def fma(builder, a, b, c):
    """a * b + c, rounded once."""
    return _call(builder, "llvm.fma.v16f32", F32x16.llvm, [a, b, c])


@_operation(types.float32, types.float32, types.float32, types.float32)
def fma_scalar(builder, a, b, c):
    """a * b + c, rounded once, as one lane of fma."""
    return _call(builder, "llvm.fma.f32", _f32, [a, b, c])


@_operation(F32x16, F32x16, F32x16)
def maximum(builder, a, b):
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


@_operation(F32x16, F32x16, F32x16)
def minimum(builder, a, b):
    return builder.select(builder.fcmp_ordered("<", a, b), a, b)


@_operation(F32x16, F32x16)
def absolute(builder, a):
    return _call(builder, "llvm.fabs.v16f32", F32x16.llvm, [a])


@_operation(F32x16, F32x16, F32x16)
def copy_sign(builder, size, sign):
    """|size| with the sign of `sign`."""
    return _call(builder, "llvm.copysign.v16f32", F32x16.llvm, [size, sign])


@_operation(F32x16, F32x16)
def nearest(builder, a):
    """Nearest whole number, ties to even."""
    return _call(builder, "llvm.rint.v16f32", F32x16.llvm, [a])


@_operation(F32x16, F32x16, F32x16)
def scale_by_power_of_two(builder, a, exponent):
    """a * 2**exponent; exponent holds whole numbers, and neither side leaves the normal range."""
    shifted = builder.shl(builder.fptosi(exponent, I32x16.llvm), _constant(I32x16.llvm, 23))
    return builder.bitcast(builder.add(builder.bitcast(a, I32x16.llvm), shifted), F32x16.llvm)


@_operation(types.float32, F32x16)
def sum_lanes(builder, a):
    signature = ir.FunctionType(_f32, [_f32, F32x16.llvm])
    name = "llvm.vector.reduce.fadd.v16f32"
    function = cgutils.get_or_insert_function(builder.module, signature, name)
    # "reassoc" makes it a tree of shuffles; without it the lanes are added one after another
    return builder.call(function, [ir.Constant(_f32, 0.0), a], fastmath=("reassoc",))


@_operation(types.float32, F32x16)
def max_lanes(builder, a):
    return _call(builder, "llvm.vector.reduce.fmax.v16f32", _f32, [a])


# ---- int32 and bytes ----------------------------------------------------------------------------


@_operation(I32x16)
def zero_i32(builder):
    return _constant(I32x16.llvm, 0)


@_operation(I32x16, types.int32)
def splat_i32(builder, value):
    return _broadcast(builder, I32x16.llvm, value)


@_operation(I32x16, I32x16, I32x16)
def add_i32(builder, a, b):
    return builder.add(a, b)


@_operation(F32x16, I32x16)
def to_f32(builder, a):
    return builder.sitofp(a, F32x16.llvm)


@_operation(I32x16, F32x16)
def to_i32(builder, a):
    """Nearest whole number, ties to even; values must fit."""
    rounded = _call(builder, "llvm.rint.v16f32", F32x16.llvm, [a])
    return builder.fptosi(rounded, I32x16.llvm)


@_operation(types.int32, I32x16)
def sum_lanes_i32(builder, a):
    return _call(builder, "llvm.vector.reduce.add.v16i32", _i32, [a])


@_operation(U8x64, U8x64)
def low_nibbles(builder, a):
    return builder.and_(a, _constant(U8x64.llvm, 15))


@_operation(U8x64, U8x64)
def high_nibbles(builder, a):
    words = builder.lshr(builder.bitcast(a, _U16x32), _constant(_U16x32, 4))
    return builder.and_(builder.bitcast(words, U8x64.llvm), _constant(U8x64.llvm, 15))


@_operation(I32x16, I32x16, U8x64, U8x64)
def dot4(builder, total, unsigned, signed):
    """total[i] + sum over j of unsigned[4 i + j] * signed[4 i + j], as uint8 times int8."""
    if has_vnni():
        # LLVM aborts the process when this instruction is emitted for a CPU without it
        args = [total, unsigned, signed]
        return _call(builder, "llvm.x86.avx512.vpdpbusd.512", I32x16.llvm, args)
    u, s = builder.bitcast(unsigned, I32x16.llvm), builder.bitcast(signed, I32x16.llvm)
    for byte in range(4):
        u_byte = builder.and_(builder.lshr(u, _constant(I32x16.llvm, 8 * byte)),
                              _constant(I32x16.llvm, 255))  # fmt: skip
        s_byte = builder.ashr(builder.shl(s, _constant(I32x16.llvm, 24 - 8 * byte)),
                              _constant(I32x16.llvm, 24))  # fmt: skip
        total = builder.add(total, builder.mul(u_byte, s_byte))
    return total
