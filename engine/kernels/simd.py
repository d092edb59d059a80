"""Loads, stores and arithmetic on vectors, for kernel code.

The vectors are those of engine.kernels.vectors. Memory is named by addresses, plain integers in
bytes, because a kernel reads several number types out of one packed block. Products of bytes have a
file of their own, engine.kernels.dot.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from engine.kernels import cpu, float16, vectors
from engine.kernels.vectors import F32x16, I32x16, U8x64, broadcast, call, constant, load, store

# ---- memory -------------------------------------------------------------------------------------


@intrinsic
def address_of(typing, array):
    """Address of an array's first element."""

    def codegen(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.ptrtoint(data, vectors.i64)

    return types.int64(array), codegen


@vectors.operation(F32x16, types.int64)
def load_f32(builder, address):
    """16 float32."""
    return load(builder, address, F32x16.llvm)


@vectors.operation(F32x16, types.int64)
def load_f16(builder, address):
    """16 float16, as float32."""
    return float16.widen(builder, load(builder, address, ir.VectorType(vectors.i16, 16)))


@vectors.operation(F32x16, types.int64)
def load_bf16(builder, address):
    """16 bfloat16, as float32."""
    words = builder.zext(load(builder, address, ir.VectorType(vectors.i16, 16)), I32x16.llvm)
    return builder.bitcast(builder.shl(words, constant(I32x16.llvm, 16)), F32x16.llvm)


@vectors.operation(F32x16, types.int64)
def load_i8(builder, address):
    """16 int8, as float32."""
    return builder.sitofp(load(builder, address, ir.VectorType(vectors.i8, 16)), F32x16.llvm)


@vectors.operation(I32x16, types.int64)
def load_i32(builder, address):
    """16 int32."""
    return load(builder, address, I32x16.llvm)


@vectors.operation(I32x16, types.int64)
def load_i32_broadcast(builder, address):
    """One int32, in all lanes."""
    return broadcast(builder, I32x16.llvm, load(builder, address, vectors.i32))


@vectors.operation(U8x64, types.int64)
def load_u8(builder, address):
    """64 bytes."""
    return load(builder, address, U8x64.llvm)


@vectors.operation(U8x64, types.int64)
def load_u8_broadcast(builder, address):
    """4 bytes, repeated 16 times."""
    return builder.bitcast(
        broadcast(builder, I32x16.llvm, load(builder, address, vectors.i32)), U8x64.llvm
    )


@vectors.operation(types.void, types.int64, F32x16)
def store_f32(builder, address, value):
    """16 float32."""
    store(builder, address, value)


@vectors.operation(types.void, types.int64, I32x16)
def store_i32(builder, address, value):
    """16 int32."""
    store(builder, address, value)


@vectors.operation(types.void, types.int64, I32x16)
def store_i8(builder, address, value):
    """16 int32 as 16 int8; values must fit."""
    store(builder, address, builder.trunc(value, ir.VectorType(vectors.i8, 16)))


@vectors.operation(types.float32, types.int64)
def get_f32(builder, address):
    """One float32."""
    return load(builder, address, vectors.f32)


@vectors.operation(types.float32, types.int64)
def get_f16(builder, address):
    """One float16, as float32."""
    return float16.widen(builder, load(builder, address, vectors.i16))


@vectors.operation(types.float32, types.int64)
def get_bf16(builder, address):
    """One bfloat16, as float32."""
    word = builder.zext(load(builder, address, vectors.i16), vectors.i32)
    return builder.bitcast(builder.shl(word, vectors.i32(16)), vectors.f32)


@vectors.operation(types.float32, types.int64)
def get_i8(builder, address):
    """One int8, as float32."""
    return builder.sitofp(load(builder, address, vectors.i8), vectors.f32)


@vectors.operation(types.int32, types.int64)
def get_i32(builder, address):
    """One int32."""
    return load(builder, address, vectors.i32)


@vectors.operation(types.int64, types.int64)
def get_i64(builder, address):
    """One int64."""
    return load(builder, address, vectors.i64)


@vectors.operation(types.int32, types.int64)
def get_u8(builder, address):
    """One byte, as int32."""
    return builder.zext(load(builder, address, vectors.i8), vectors.i32)


@vectors.operation(types.void, types.int64, types.float32)
def set_f32(builder, address, value):
    """One float32."""
    store(builder, address, value)


@vectors.operation(types.void, types.int64, types.float32)
def set_f16(builder, address, value):
    """One float32, rounded to float16."""
    store(builder, address, float16.narrow(builder, value))


@vectors.operation(types.void, types.int64, types.float32)
def set_i8(builder, address, value):
    """One float32, a whole number that fits, as int8."""
    store(builder, address, builder.trunc(builder.fptosi(value, vectors.i32), vectors.i8))


@vectors.operation(types.void, types.int64, types.int32)
def set_i32(builder, address, value):
    """One int32."""
    store(builder, address, value)


@vectors.operation(types.void, types.int64)
def prefetch(builder, address):
    """Ask for the cache line at this address; any address is allowed."""
    pointer = builder.inttoptr(address, vectors.i8.as_pointer())
    call(
        builder,
        "llvm.prefetch.p0",
        ir.VoidType(),
        [pointer, vectors.i32(0), vectors.i32(3), vectors.i32(1)],
    )


# ---- float32 ------------------------------------------------------------------------------------


@vectors.operation(F32x16)
def zero_f32(builder):
    return constant(F32x16.llvm, 0.0)


@vectors.operation(F32x16)
def lane_numbers(builder):
    """0, 1 … 15."""
    return ir.Constant(F32x16.llvm, [vectors.f32(float(lane)) for lane in range(16)])


@vectors.operation(F32x16, types.float32)
def splat(builder, value):
    """The same number in all lanes."""
    return broadcast(builder, F32x16.llvm, value)


@vectors.operation(F32x16, F32x16, F32x16)
def add(builder, a, b):
    return builder.fadd(a, b)


@vectors.operation(F32x16, F32x16, F32x16)
def sub(builder, a, b):
    return builder.fsub(a, b)


@vectors.operation(F32x16, F32x16, F32x16)
def mul(builder, a, b):
    return builder.fmul(a, b)


@vectors.operation(F32x16, F32x16, F32x16)
def div(builder, a, b):
    return builder.fdiv(a, b)


@vectors.operation(F32x16, F32x16, F32x16, F32x16)
def fma(builder, a, b, c):
    """a * b + c, rounded once where the CPU can, twice elsewhere."""
    return _multiply_add(builder, "llvm.fma.v16f32", a, b, c)


@vectors.operation(types.float32, types.float32, types.float32, types.float32)
def fma_scalar(builder, a, b, c):
    """a * b + c, rounded as one lane of fma."""
    return _multiply_add(builder, "llvm.fma.f32", a, b, c)


def _multiply_add(builder, name, a, b, c):
    if cpu.cpu().fma:
        return call(builder, name, a.type, [a, b, c])
    # LLVM would call a C function for each lane
    return builder.fadd(builder.fmul(a, b), c)


@vectors.operation(F32x16, F32x16, F32x16)
def maximum(builder, a, b):
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


@vectors.operation(F32x16, F32x16, F32x16)
def minimum(builder, a, b):
    return builder.select(builder.fcmp_ordered("<", a, b), a, b)


@vectors.operation(F32x16, F32x16)
def absolute(builder, a):
    return call(builder, "llvm.fabs.v16f32", F32x16.llvm, [a])


@vectors.operation(F32x16, F32x16, F32x16)
def copy_sign(builder, size, sign):
    """|size| with the sign of `sign`."""
    return call(builder, "llvm.copysign.v16f32", F32x16.llvm, [size, sign])


@vectors.operation(F32x16, F32x16)
def nearest(builder, a):
    """Nearest whole number, ties to even."""
    return call(builder, "llvm.rint.v16f32", F32x16.llvm, [a])


@vectors.operation(F32x16, F32x16, F32x16)
def scale_by_power_of_two(builder, a, exponent):
    """a * 2**exponent; exponent holds whole numbers, and neither side leaves the normal range."""
    shifted = builder.shl(builder.fptosi(exponent, I32x16.llvm), constant(I32x16.llvm, 23))
    return builder.bitcast(builder.add(builder.bitcast(a, I32x16.llvm), shifted), F32x16.llvm)


@vectors.operation(types.float32, F32x16)
def sum_lanes(builder, a):
    zero = constant(vectors.f32, 0.0)
    # "reassoc" makes it a tree of shuffles; without it the lanes are added one after another
    name, flags = "llvm.vector.reduce.fadd.v16f32", ("reassoc",)
    return call(builder, name, vectors.f32, [zero, a], flags)


@vectors.operation(types.float32, F32x16)
def max_lanes(builder, a):
    return call(builder, "llvm.vector.reduce.fmax.v16f32", vectors.f32, [a])


# ---- int32 and bytes ----------------------------------------------------------------------------


@vectors.operation(I32x16)
def zero_i32(builder):
    return constant(I32x16.llvm, 0)


@vectors.operation(I32x16, types.int32)
def splat_i32(builder, value):
    return broadcast(builder, I32x16.llvm, value)


@vectors.operation(I32x16, I32x16, I32x16)
def add_i32(builder, a, b):
    return builder.add(a, b)


@vectors.operation(F32x16, I32x16)
def to_f32(builder, a):
    return builder.sitofp(a, F32x16.llvm)


@vectors.operation(I32x16, F32x16)
def to_i32(builder, a):
    """Nearest whole number, ties to even; values must fit."""
    rounded = call(builder, "llvm.rint.v16f32", F32x16.llvm, [a])
    return builder.fptosi(rounded, I32x16.llvm)


@vectors.operation(types.int32, I32x16)
def sum_lanes_i32(builder, a):
    return call(builder, "llvm.vector.reduce.add.v16i32", vectors.i32, [a])
