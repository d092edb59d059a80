"""Vectors as types for Numba, and how an operation on them is defined.

A vector is an ordinary local variable in kernel code and lives in a register. 512 bits is the width
in the code; LLVM splits it where registers are narrower.

    F32x16   sixteen float32        I32x16   sixteen int32        U8x64   sixty-four bytes
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.extending import intrinsic, register_model

i8, i16, i32, i64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
f16, f32 = ir.HalfType(), ir.FloatType()


def _vector_type(name, element, count):
    """A Numba type whose values are LLVM vectors."""
    cls = type(name, (types.Type,), {"llvm": ir.VectorType(element, count)})

    @register_model(cls)
    class Model(models.PrimitiveModel):
        def __init__(self, manager, numba_type):
            super().__init__(manager, numba_type, numba_type.llvm)

    return cls(name=name)


F32x16 = _vector_type("F32x16", f32, 16)
I32x16 = _vector_type("I32x16", i32, 16)
U8x64 = _vector_type("U8x64", i8, 64)


def operation(result, *arguments):
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


# ---- for emitters -------------------------------------------------------------------------------


def constant(llvm_type, value):
    """A number, or a vector that holds it in all lanes."""
    if not isinstance(llvm_type, ir.VectorType):
        return ir.Constant(llvm_type, value)
    return ir.Constant(llvm_type, [ir.Constant(llvm_type.element, value)] * llvm_type.count)


def broadcast(builder, llvm_type, scalar):
    """A vector that holds a scalar in all lanes."""
    undefined = ir.Constant(llvm_type, ir.Undefined)
    first = builder.insert_element(undefined, scalar, i32(0))
    return builder.shuffle_vector(first, undefined, _lanes([0] * llvm_type.count))


def load(builder, address, llvm_type):
    """What lies at an address, aligned or not."""
    value = builder.load(builder.inttoptr(address, llvm_type.as_pointer()))
    value.align = 1
    return value


def store(builder, address, value):
    """Put a value at an address, aligned or not."""
    builder.store(value, builder.inttoptr(address, value.type.as_pointer())).align = 1


def call(builder, name, result, args, fastmath=()):
    """Call a function of LLVM's by its name; for a CPU's own see engine.kernels.cpu first."""
    signature = ir.FunctionType(result, [arg.type for arg in args])
    function = cgutils.get_or_insert_function(builder.module, signature, name)
    return builder.call(function, args, fastmath=fastmath)


def part(builder, vector, index, n_parts):
    """One of n equal parts of a vector."""
    size = vector.type.count // n_parts
    undefined = ir.Constant(vector.type, ir.Undefined)
    return builder.shuffle_vector(
        vector, undefined, _lanes(range(index * size, (index + 1) * size))
    )


def joined(builder, parts):
    """The vector of 1, 2, 4, … parts of one type."""
    while len(parts) > 1:
        lanes = _lanes(range(2 * parts[0].type.count))
        parts = [
            builder.shuffle_vector(a, b, lanes)
            for a, b in zip(parts[::2], parts[1::2], strict=True)
        ]
    return parts[0]


def _lanes(numbers):
    lanes = [i32(number) for number in numbers]
    return ir.Constant(ir.VectorType(i32, len(lanes)), lanes)
