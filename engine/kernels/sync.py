"""Threads inside a kernel: atomics and a spinning barrier."""

from __future__ import annotations

import sys

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from engine.kernels.compiler import kernel

_i32, _i64 = ir.IntType(32), ir.IntType(64)

# Cells of the int64 array that a team shares. What different threads write lies 128 bytes apart:
# processors fetch lines of 64 in pairs. MAIL + STRIDE * thread counts the calls for that thread.
STRIDE = 16
ARRIVED, GENERATION, CALL, MAIL = 0, STRIDE, 2 * STRIDE, 3 * STRIDE
N_SHARES = CALL + 1


def n_cells(n_threads: int) -> int:
    """The size of the array, zero at first."""
    return MAIL + STRIDE * n_threads


# Spins (about 10 µs) before the core is offered to whoever waits for it, often the very thread that
# is waited for: with both cores busy elsewhere, 20,000 gave 6 to 100 tokens/s, 300 give 80 to 120
PATIENCE = 300


def _pointer(builder, address):
    return builder.inttoptr(address, _i64.as_pointer())


@intrinsic
def fetch_add(typing, address, value):
    """Add to the int64 at `address`; returns what was there."""

    def codegen(context, builder, signature, args):
        return builder.atomic_rmw("add", _pointer(builder, args[0]), args[1], "acq_rel")

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def load(typing, address):
    """The int64 at `address`; what was stored before it is visible afterwards."""

    def codegen(context, builder, signature, args):
        return builder.load_atomic(_pointer(builder, args[0]), "acquire", 8)

    return types.int64(types.int64), codegen


@intrinsic
def store(typing, address, value):
    """Store an int64; all that was written before becomes visible with it."""

    def codegen(context, builder, signature, args):
        builder.store_atomic(args[1], _pointer(builder, args[0]), "release", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def relax(typing):
    """Tell the core that this is a spinning loop."""

    def codegen(context, builder, signature, args):
        triple = binding.get_default_triple()
        if triple.startswith(("x86_64", "i386", "i686")):
            signature = ir.FunctionType(ir.VoidType(), [])
            name = "llvm.x86.sse2.pause"
            builder.call(cgutils.get_or_insert_function(builder.module, signature, name), [])
        elif triple.startswith(("aarch64", "arm64")):
            signature = ir.FunctionType(ir.VoidType(), [_i32])
            name = "llvm.aarch64.hint"
            hint = cgutils.get_or_insert_function(builder.module, signature, name)
            builder.call(hint, [_i32(1)])
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def give_way(typing):
    """Let another thread have this core, where the system has a call for it."""

    def codegen(context, builder, signature, args):
        if sys.platform != "win32":
            signature = ir.FunctionType(_i32, [])
            name = "sched_yield"
            builder.call(cgutils.get_or_insert_function(builder.module, signature, name), [])
        return context.get_dummy_value()

    return types.void(), codegen


@kernel
def barrier(cells, n_threads):
    """Wait until all threads are here. cells: address of n_cells int64, zero at first."""
    if n_threads == 1:
        return
    generation = load(cells + 8 * GENERATION)
    if fetch_add(cells + 8 * ARRIVED, 1) == n_threads - 1:
        store(cells + 8 * ARRIVED, 0)
        store(cells + 8 * GENERATION, generation + 1)
        return
    spins = 0
    while load(cells + 8 * GENERATION) == generation:
        relax()
        spins += 1
        if spins > PATIENCE:
            give_way()
