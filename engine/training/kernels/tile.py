"""A product of small matrices in registers: what attention and adapters are made of.

c[i, j] (+)= sum over k < n of a[i, k] b[k, j] for ROWS rows and COLUMNS columns. b's and c's rows
are contiguous, a may have any two strides, so that it may be a transposed matrix. All sums stand in
registers at once on CPUs that have 32 of 64 bytes; on others a quarter of them, four times: what
does not fit would be kept in memory from one k to the next.
"""

from __future__ import annotations

from numba import types
from numba.extending import intrinsic

from engine.kernels import cpu
from engine.kernels.vectors import F32x16, broadcast, call, constant, f32, i64, load, store

ROWS, COLUMNS = 8, 32
_VECTORS = COLUMNS // 16
_SIGNATURE = types.void(*[types.int64] * 8)


def _times_plus(builder, x, y, total):
    if cpu.cpu().fma:
        return call(builder, "llvm.fma.v16f32", F32x16.llvm, [x, y, total])
    return builder.fadd(builder.fmul(x, y), total)


def _emit(builder, args, first):
    """first(row, vector) is what a sum begins with."""
    wide = cpu.cpu().instructions.startswith("avx512")
    n_rows, n_vectors = (ROWS, _VECTORS) if wide else (ROWS // 2, _VECTORS // 2)
    for top in range(0, ROWS, n_rows):
        for left in range(0, _VECTORS, n_vectors):
            rows, vectors = range(top, top + n_rows), range(left, left + n_vectors)
            _emit_block(builder, args, first, rows, vectors)


def _emit_block(builder, args, first, rows, vectors):
    """The sums of these rows and vectors, from the first k to the last."""
    a, a_row, a_step, n, b, b_step, c, c_row = args
    places = [(row, v) for row in rows for v in vectors]
    begin = [first(c, c_row, row, v) for row, v in places]
    offsets = {row: builder.mul(a_row, i64(row)) for row in rows}
    before, loop = builder.block, builder.append_basic_block("loop")
    done = builder.append_basic_block("done")
    builder.cbranch(builder.icmp_signed(">", n, i64(0)), loop, done)

    builder.position_at_end(loop)
    left, at_a, at_b = (builder.phi(i64) for _ in range(3))
    sums = [builder.phi(F32x16.llvm) for _ in places]
    columns = {v: load(builder, builder.add(at_b, i64(64 * v)), F32x16.llvm) for v in vectors}
    values = {row: load(builder, builder.add(at_a, offsets[row]), f32) for row in rows}
    spread = {row: broadcast(builder, F32x16.llvm, value) for row, value in values.items()}
    new = [
        _times_plus(builder, spread[row], columns[v], total)
        for (row, v), total in zip(places, sums, strict=True)
    ]
    fewer = builder.sub(left, i64(1))
    steps = [(left, n, fewer), (at_a, a, builder.add(at_a, a_step))]
    steps.append((at_b, b, builder.add(at_b, b_step)))
    for phi, start, later in [*steps, *zip(sums, begin, new, strict=True)]:
        phi.add_incoming(start, before)
        phi.add_incoming(later, loop)
    builder.cbranch(builder.icmp_signed(">", fewer, i64(0)), loop, done)

    builder.position_at_end(done)
    totals = [builder.phi(F32x16.llvm) for _ in places]
    for (row, v), total, start, later in zip(places, totals, begin, new, strict=True):
        total.add_incoming(start, before)
        total.add_incoming(later, loop)
        store(builder, _place(builder, c, c_row, row, v), total)


def _place(builder, c, c_row, row, v):
    return builder.add(builder.add(c, builder.mul(c_row, i64(row))), i64(64 * v))


@intrinsic
def tile(typing, a, a_row, a_step, n, b, b_step, c, c_row):
    """c = a b; strides in bytes: a_row from row to row of a, a_step and b_step from k to k + 1."""

    def codegen(context, builder, signature, args):
        _emit(builder, args, lambda *_: constant(F32x16.llvm, 0.0))
        return context.get_dummy_value()

    return _SIGNATURE, codegen


@intrinsic
def tile_add(typing, a, a_row, a_step, n, b, b_step, c, c_row):
    """c += a b."""

    def codegen(context, builder, signature, args):
        def present(c, c_row, row, v):
            return load(builder, _place(builder, c, c_row, row, v), F32x16.llvm)

        _emit(builder, args, present)
        return context.get_dummy_value()

    return _SIGNATURE, codegen
