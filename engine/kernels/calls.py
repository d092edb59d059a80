"""One call of a kernel on several threads at once.

The thread that calls posts the work and does its own share. The others `serve`: each spins on a
cell of its own, so that it begins within a microsecond and without Python's lock.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from engine.kernels.compiler import entry, kernel
from engine.kernels.sync import (
    CALL,
    MAIL,
    N_SHARES,
    PATIENCE,
    STRIDE,
    barrier,
    give_way,
    load,
    relax,
    store,
)

_i32, _i64 = ir.IntType(32), ir.IntType(64)
_SHARE = ir.FunctionType(_i64, [_i64] * 4)  # thread, n_threads, cells, the bound work


@intrinsic
def bind(typing, work, arguments):
    """The address of work and arguments together; good until the kernel that binds returns.

    work       a kernel that never raises: work(thread, n_threads, cells, *arguments) -> int64
    arguments  a tuple
    """
    called = work.get_call_type(typing, (*[types.int64] * 3, *arguments.types), {})

    def codegen(context, builder, signature, args):
        compiled = work.dispatcher.overloads[called.args]
        context.add_linking_libs([compiled.library])
        share = ir.Function(builder.module, _SHARE, builder.module.get_unique_name("share"))
        share.linkage = "internal"
        bound = ir.LiteralStructType([_SHARE.as_pointer(), args[1].type])
        _write_share(context, share, bound, compiled.fndesc)
        slot = cgutils.alloca_once(builder, bound)
        builder.store(share, cgutils.gep_inbounds(builder, slot, 0, 0))
        builder.store(args[1], cgutils.gep_inbounds(builder, slot, 0, 1))
        return builder.ptrtoint(slot, _i64)

    return types.int64(work, arguments), codegen


def _write_share(context, share, bound, work):
    """The body of `share`: work on its first three arguments and on those behind the fourth."""
    builder = ir.IRBuilder(share.append_basic_block())
    place = builder.inttoptr(share.args[3], bound.as_pointer())
    arguments = builder.load(cgutils.gep_inbounds(builder, place, 0, 1))
    arguments = [builder.extract_value(arguments, i) for i in range(len(work.argtypes) - 3)]
    function = context.declare_function(builder.module, work)
    _, result = context.call_conv.call_function(
        builder, function, work.restype, work.argtypes, [*share.args[:3], *arguments]
    )
    builder.ret(result)


@intrinsic
def _invoke(typing, thread, n_threads, cells, bound):
    """This thread's share of bound work."""

    def codegen(context, builder, signature, args):
        share = builder.load(builder.inttoptr(args[3], _SHARE.as_pointer().as_pointer()))
        return builder.call(share, args)

    return types.int64(*[types.int64] * 4), codegen


@kernel
def run(cells, n_threads, bound):
    """Bound work on n_threads, this one among them; what its share returned. The others `serve`."""
    if n_threads > 1:
        store(cells + 8 * CALL, bound)
        store(cells + 8 * N_SHARES, n_threads)
        for thread in range(1, n_threads):
            mail = cells + 8 * (MAIL + STRIDE * thread)
            store(mail, load(mail) + 1)
    result = _invoke(0, n_threads, cells, bound)
    barrier(cells, n_threads)
    return result


@entry
def serve(cells, thread, seen, patience):
    """Take part in every call; returns how many were seen, after `patience` looks in vain.

    seen  what the last serve of this thread returned, 0 at first
    """
    mail, looks = cells + 8 * (MAIL + STRIDE * thread), 0
    while looks < patience:
        if load(mail) == seen:
            relax()
            looks += 1
            if looks > PATIENCE:
                give_way()
        else:
            seen, looks = seen + 1, 0
            n_threads = load(cells + 8 * N_SHARES)
            _invoke(thread, n_threads, cells, load(cells + 8 * CALL))
            barrier(cells, n_threads)
    return seen
