"""Calls of compiled kernels through their addresses: who calls knows a signature, not a kernel.

Numba caches no caller of a function that is passed by value, and a table of addresses lets one
compiled layer loop serve every weight format and every format of the cache.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types


def caller(signature):
    """What an intrinsic f(address, *arguments) returns to call a void kernel of `signature`."""

    def codegen(context, builder, called, args):
        types_ = [context.get_value_type(arg) for arg in signature.args]
        pointer = ir.FunctionType(ir.VoidType(), types_).as_pointer()
        builder.call(builder.inttoptr(args[0], pointer), list(args[1:]))
        return context.get_dummy_value()

    return types.void(types.int64, *signature.args), codegen
