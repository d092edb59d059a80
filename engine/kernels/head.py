"""The scores of the vocabulary when only the best are needed: a screen first, then a few exactly.

A screen is a smaller matrix that says roughly what the head would: the head itself in fewer bits
(engine/sparsity/head.py). It is read whole; of the head, only the groups of rows are read that can
hold one of the best scores, by a bound of the screen's error for every row. What is computed has
the bits of the dense head.
"""

from __future__ import annotations

import numpy as np

from engine.kernels import simd, sync
from engine.kernels.activations import BLOCK_BYTES, add_rows, quantize
from engine.kernels.compiler import kernel
from engine.kernels.matmul import call_matmul
from engine.kernels.projection import project, share
from engine.kernels.tables import (
    BASIS,
    BLOCKS,
    DATA,
    HEAD,
    INT8,
    MATMUL,
    SCREEN,
    SCREEN_REST,
    row_of,
)

F = np.float32
LOWEST = F(-3.0e38)


@kernel
def screened_head(
    plan, matrices, bounds, buffers, batch, x, blocks, logits, thread, n_threads, cells
):
    """logits, of which the batch.n_best largest of each row are those of the dense head.

    bounds   address of float32 (padded vocabulary,): how far the screen is off at most, for a row x
             of length 1 and a margin of 1
    x        float32 (rows, hidden) and its int8 blocks
    The others are the screen's. The batch.n_first groups of 16 that look best are computed first;
    the n_best-th of their maxima is what any other must be able to reach to be computed, too.
    """
    rows, head = logits.shape[0], matrices[HEAD]
    _screen(matrices, buffers, x, blocks, logits, thread, n_threads, cells)
    first, last = share(head, thread, n_threads)
    for t in range(rows):
        _hide_padding(plan.vocab_size, row_of(logits, t), last)
        margin = F(batch.margin) * _length(row_of(x, t), x.shape[1])
        _look_at(buffers.groups, t, row_of(logits, t), bounds, margin, first, last)
    sync.barrier(cells, n_threads)
    best, n_groups = row_of(buffers.best, thread), buffers.groups.shape[2]
    for t in range(rows):
        likely, exact = row_of(buffers.groups[1], t), row_of(buffers.groups[2], t)
        least = kth_largest(likely, n_groups, batch.n_first, best)
        for g in range(first, last):
            if simd.get_f32(likely + 4 * g) >= least:
                _compute(plan, head, x, blocks, logits, t, g)
                score = simd.max_lanes(simd.load_f32(row_of(logits, t) + 64 * g))
                simd.set_f32(exact + 4 * g, score)
    sync.barrier(cells, n_threads)
    for t in range(rows):
        upper, exact = row_of(buffers.groups[0], t), row_of(buffers.groups[2], t)
        least = kth_largest(exact, n_groups, batch.n_best, best)
        for g in range(first, last):
            if simd.get_f32(upper + 4 * g) >= least and simd.get_f32(exact + 4 * g) == LOWEST:
                _compute(plan, head, x, blocks, logits, t, g)


@kernel
def _screen(matrices, buffers, x, blocks, logits, thread, n_threads, cells):
    """logits = the screen's scores; this thread's groups."""
    rows, basis = logits.shape[0], matrices[BASIS]
    screen, rest = matrices[SCREEN], matrices[SCREEN_REST]
    if basis[DATA] == 0:
        project(screen, 0, x, blocks, logits, thread, n_threads)
        return
    turned, turned_blocks = buffers.turned[:rows], buffers.turned_blocks[:rows]
    project(basis, 0, x, blocks, turned, thread, n_threads)
    sync.barrier(cells, n_threads)
    for t in range(rows * thread // n_threads, rows * (thread + 1) // n_threads):
        quantize(row_of(turned, t), turned.shape[1] // 32, row_of(turned_blocks, t))
    sync.barrier(cells, n_threads)
    project(screen, 0, turned, turned_blocks, logits, thread, n_threads)
    if rest[DATA] != 0:
        after = screen[BLOCKS]
        project(rest, 1, turned[:, 32 * after :], turned_blocks[:, BLOCK_BYTES * after :],
                buffers.rest[:rows], thread, n_threads)  # fmt: skip
        first, last = share(rest, thread, n_threads)
        for t in range(rows):
            at, more = row_of(logits, t), row_of(buffers.rest, t)
            add_rows(at + 64 * first, more + 64 * first, 0, 16 * (last - first))


@kernel
def _length(x, n):
    """Of a float32 (n,) vector, n a multiple of 16."""
    squares = simd.zero_f32()
    for i in range(0, 4 * n, 64):
        value = simd.load_f32(x + i)
        squares = simd.fma(value, value, squares)
    return np.sqrt(simd.sum_lanes(squares))


@kernel
def _look_at(groups, t, scores, bounds, margin, first, last):
    """What the screen says of groups [first, last): at most, likely, and nothing exact yet."""
    upper, likely, exact = row_of(groups[0], t), row_of(groups[1], t), row_of(groups[2], t)
    wide = simd.splat(margin)
    for g in range(first, last):
        score = simd.load_f32(scores + 64 * g)
        reach = simd.fma(simd.load_f32(bounds + 64 * g), wide, score)
        simd.set_f32(upper + 4 * g, simd.max_lanes(reach))
        simd.set_f32(likely + 4 * g, simd.max_lanes(score))
        simd.set_f32(exact + 4 * g, LOWEST)


@kernel
def _compute(plan, head, x, blocks, logits, t, g):
    """The exact scores of a group for row t."""
    at, stride = row_of(x, t), x.strides[0]
    if head[INT8]:
        at, stride = row_of(blocks, t), blocks.strides[0]
    call_matmul(head[MATMUL], head[DATA], g, g + 1, head[BLOCKS], at, stride, 1,
                row_of(logits, t), logits.strides[0])  # fmt: skip
    _hide_padding(plan.vocab_size, row_of(logits, t), g + 1)


@kernel
def _hide_padding(vocab_size, scores, end):
    """Rows that only fill the last group up are never the best, if it is below group `end`."""
    for i in range(vocab_size, 16 * end):
        simd.set_f32(scores + 4 * i, LOWEST)


@kernel
def kth_largest(values, n, k, best):
    """The k-th largest of float32 (n,), n a multiple of 16, at least k; best: scratch (k,)."""
    for j in range(k):
        simd.set_f32(best + 4 * j, LOWEST)
    least = LOWEST
    for i in range(0, n, 16):
        if not simd.max_lanes(simd.load_f32(values + 4 * i)) > least:
            continue
        for lane in range(i, i + 16):
            value = simd.get_f32(values + 4 * lane)
            if value > least:
                j = k - 1
                while j > 0 and simd.get_f32(best + 4 * j - 4) < value:
                    simd.set_f32(best + 4 * j, simd.get_f32(best + 4 * j - 4))
                    j -= 1
                simd.set_f32(best + 4 * j, value)
                least = simd.get_f32(best + 4 * k - 4)
    return least
