"""Causal attention of documents that stand one after the other, and the way back.

An item is a document and one head of keys with the heads of queries that share it. Queries are
worked through in runs of RUN rows, so that scores stay in the cache at any length. In scratch a
document's rows are padded to whole tiles; scores beyond the diagonal are left out by tiles and
cleared within them.

qkv (T, H + 2 n_kv_heads heads of D): queries, keys, values. cos, sin (T, rotary_dim / 2) float32.
starts (documents + 1,) int64; order (documents,) int64: the longest first. Scores are of queries
times `scale`. log_sums (T, H) float32: log of the sum of e to the scores.
"""

from __future__ import annotations

import math

import numpy as np

from engine.kernels import simd
from engine.kernels.compiler import callback, kernel
from engine.kernels.softmax import relative
from engine.training.kernels import heads, tile, widths
from engine.training.kernels.tasks import TASK, claim, real, thread_number, whole

F = np.float32
RUN = 64
MASKED = F(-1e30)


@kernel
def _mask(scores, stride, first, n):
    """Clear what rows first … first + n - 1 must not see, up to the end of their tiles."""
    for row in range(n):
        seen = first + row + 1
        end = _columns(first + row // tile.ROWS * tile.ROWS)
        for j in range(seen, end):
            simd.set_f32(scores + stride * row + 4 * j, MASKED)


@kernel
def _columns(first):
    """How many columns of scores a tile of rows that begins at `first` needs."""
    return (first + tile.ROWS + tile.COLUMNS - 1) // tile.COLUMNS * tile.COLUMNS


@kernel
def _scores(q, keys, d, padded, first, n, scores):
    """q (RUN, D) times keys (D, padded) -> scores (RUN, padded), up to the diagonal's tiles."""
    for row in range(0, n, tile.ROWS):
        for j in range(0, _columns(first + row), tile.COLUMNS):
            tile.tile(q + 4 * d * row, 4 * d, 4, d, keys + 4 * j, 4 * padded,
                      scores + 4 * (padded * row + j), 4 * padded)  # fmt: skip


@kernel
def _forward(load, store, size, block):
    """-> out (T, H heads of D), log_sums."""
    qkv, cos, sin, starts, order = (
        whole(block, 0), whole(block, 1), whole(block, 2), whole(block, 3), whole(block, 4),
    )  # fmt: skip
    n_heads, n_kv, d, rotary, interleaved = (
        whole(block, 5), whole(block, 6), whole(block, 7), whole(block, 8), whole(block, 9),
    )  # fmt: skip
    scratch, scratch_bytes, out, log_sums, scale = (
        whole(block, 10), whole(block, 11), whole(block, 12), whole(block, 13), real(block, 14),
    )  # fmt: skip
    group, qkv_row, turn = n_heads // n_kv, size * d * (n_heads + 2 * n_kv), 2 * rotary
    q = scratch + scratch_bytes * thread_number(block)
    o = q + 4 * RUN * d
    item = claim(block)
    while item >= 0:
        document, kv = simd.get_i64(order + 8 * (item // n_kv)), item % n_kv
        start = simd.get_i64(starts + 8 * document)
        n = simd.get_i64(starts + 8 * document + 8) - start
        padded = (n + tile.COLUMNS - 1) // tile.COLUMNS * tile.COLUMNS
        values = o + 4 * RUN * d
        keys = values + 4 * padded * d
        scores = keys + 4 * padded * d
        heads.clear(keys, padded * d)
        for t in range(n):
            head = qkv + qkv_row * (start + t) + size * d * (n_heads + kv)
            angle = turn * (start + t)
            heads.take(load, size, head, cos + angle, sin + angle, d, rotary, interleaved,
                       F(1), q)  # fmt: skip
            heads.transpose(q, 1, d, 0, keys + 4 * t, 4 * padded)
            heads.take(load, size, head + size * d * n_kv, 0, 0, d, 0, 0, F(1), values + 4 * d * t)
        heads.clear(values + 4 * d * n, (padded - n) * d)
        for h in range(kv * group, (kv + 1) * group):
            for first in range(0, n, RUN):
                rows = min(RUN, n - first)
                for row in range(rows):
                    t = start + first + row
                    heads.take(load, size, qkv + qkv_row * t + size * d * h, cos + turn * t,
                               sin + turn * t, d, rotary, interleaved, scale,
                               q + 4 * d * row)  # fmt: skip
                _scores(q, keys, d, padded, first, rows, scores)
                _mask(scores, 4 * padded, first, rows)
                for row in range(rows):
                    end = _columns(first + row // tile.ROWS * tile.ROWS)
                    place = log_sums + 4 * (n_heads * (start + first + row) + h)
                    _softmax(scores + 4 * padded * row, end, place)
                for row in range(0, rows, tile.ROWS):
                    for j in range(0, d, tile.COLUMNS):
                        tile.tile(scores + 4 * padded * row, 4 * padded, 4,
                                  min(first + row + tile.ROWS, padded), values + 4 * j, 4 * d,
                                  o + 4 * (d * row + j), 4 * d)  # fmt: skip
                for row in range(rows):
                    t = start + first + row
                    for i in range(0, d, 16):
                        value = simd.load_f32(o + 4 * (d * row + i))
                        store(out + size * (d * (n_heads * t + h) + i), value)
        item = claim(block)


@kernel
def _softmax(scores, n, log_sum):
    """scores (n,) to their softmax; the log of the sum of exponentials goes to an address."""
    largest = simd.splat(MASKED)
    for j in range(0, 4 * n, 64):
        largest = simd.maximum(largest, simd.load_f32(scores + j))
    top = simd.max_lanes(largest)
    total = simd.zero_f32()
    for j in range(0, 4 * n, 64):
        value = relative(simd.sub(simd.load_f32(scores + j), simd.splat(top)))
        simd.store_f32(scores + j, value)
        total = simd.add(total, value)
    sum_ = simd.sum_lanes(total)
    inverse = simd.splat(F(1) / sum_)
    for j in range(0, 4 * n, 64):
        simd.store_f32(scores + j, simd.mul(simd.load_f32(scores + j), inverse))
    simd.set_f32(log_sum, top + F(math.log(sum_)))


@kernel
def _weigh_back(scores, back, n, log_sum, delta):
    """scores -> probabilities p, back = dp -> p (dp - delta), both (n,)."""
    for j in range(0, 4 * n, 64):
        p = relative(simd.sub(simd.load_f32(scores + j), simd.splat(log_sum)))
        simd.store_f32(scores + j, p)
        dp = simd.sub(simd.load_f32(back + j), simd.splat(delta))
        simd.store_f32(back + j, simd.mul(p, dp))


@kernel
def _add_transposed(left, right, d, padded, first, n, sums):
    """sums (padded, D) += leftᵀ right of left (n, padded), 0 beyond the diagonal, right (n, D)."""
    for j in range(0, min(first + RUN, padded), tile.ROWS):
        skipped = max(0, (j - first) // tile.ROWS * tile.ROWS)
        for i in range(0, d, tile.COLUMNS):
            tile.tile_add(left + 4 * (padded * skipped + j), 4, 4 * padded, n - skipped,
                          right + 4 * (d * skipped + i), 4 * d,
                          sums + 4 * (d * j + i), 4 * d)  # fmt: skip


@kernel
def _backward(load, store, size, block):
    """out, log_sums, d_out (T, H heads of D) -> d_qkv."""
    qkv, cos, sin, starts, order = (
        whole(block, 0), whole(block, 1), whole(block, 2), whole(block, 3), whole(block, 4),
    )  # fmt: skip
    n_heads, n_kv, d, rotary, interleaved = (
        whole(block, 5), whole(block, 6), whole(block, 7), whole(block, 8), whole(block, 9),
    )  # fmt: skip
    scratch, scratch_bytes, out, log_sums, scale = (
        whole(block, 10), whole(block, 11), whole(block, 12), whole(block, 13), real(block, 14),
    )  # fmt: skip
    d_out, d_qkv = whole(block, 15), whole(block, 16)
    group, qkv_row, turn = n_heads // n_kv, size * d * (n_heads + 2 * n_kv), 2 * rotary
    q = scratch + scratch_bytes * thread_number(block)
    do, dq = q + 4 * RUN * d, q + 8 * RUN * d
    delta = dq + 4 * RUN * d
    item = claim(block)
    while item >= 0:
        document, kv = simd.get_i64(order + 8 * (item // n_kv)), item % n_kv
        start = simd.get_i64(starts + 8 * document)
        n = simd.get_i64(starts + 8 * document + 8) - start
        padded = (n + tile.COLUMNS - 1) // tile.COLUMNS * tile.COLUMNS
        area = 4 * padded * d
        keys = delta + 4 * RUN
        keys_t, values_t, dk, dv = keys + area, keys + 2 * area, keys + 3 * area, keys + 4 * area
        scores = dv + area
        back = scores + 4 * RUN * padded
        heads.clear(keys, 5 * padded * d)
        for t in range(n):
            head = qkv + qkv_row * (start + t) + size * d * (n_heads + kv)
            angle = turn * (start + t)
            heads.take(load, size, head, cos + angle, sin + angle, d, rotary, interleaved,
                       F(1), keys + 4 * d * t)  # fmt: skip
            heads.take(load, size, head + size * d * n_kv, 0, 0, d, 0, 0, F(1), q)
            heads.transpose(q, 1, d, 0, values_t + 4 * t, 4 * padded)
        heads.transpose(keys, n, d, 4 * d, keys_t, 4 * padded)
        for h in range(kv * group, (kv + 1) * group):
            for first in range(0, n, RUN):
                rows = min(RUN, n - first)
                for row in range(rows):
                    t = start + first + row
                    heads.take(load, size, qkv + qkv_row * t + size * d * h, cos + turn * t,
                               sin + turn * t, d, rotary, interleaved, scale,
                               q + 4 * d * row)  # fmt: skip
                    at = size * d * (n_heads * t + h)
                    heads.take(load, size, d_out + at, 0, 0, d, 0, 0, F(1), do + 4 * d * row)
                    dot = simd.zero_f32()
                    for i in range(0, d, 16):
                        o = load(out + at + size * i)
                        dot = simd.fma(o, simd.load_f32(do + 4 * (d * row + i)), dot)
                    simd.set_f32(delta + 4 * row, simd.sum_lanes(dot))
                _scores(q, keys_t, d, padded, first, rows, scores)
                _scores(do, values_t, d, padded, first, rows, back)
                _mask(scores, 4 * padded, first, rows)
                for row in range(rows):
                    place = 4 * (n_heads * (start + first + row) + h)
                    _weigh_back(scores + 4 * padded * row, back + 4 * padded * row,
                                _columns(first + row // tile.ROWS * tile.ROWS),
                                simd.get_f32(log_sums + place),
                                simd.get_f32(delta + 4 * row))  # fmt: skip
                for row in range(0, rows, tile.ROWS):
                    for j in range(0, d, tile.COLUMNS):
                        tile.tile(back + 4 * padded * row, 4 * padded, 4,
                                  min(first + row + tile.ROWS, padded), keys + 4 * j, 4 * d,
                                  dq + 4 * (d * row + j), 4 * d)  # fmt: skip
                _add_transposed(back, q, d, padded, first, rows, dk)
                _add_transposed(scores, do, d, padded, first, rows, dv)
                for row in range(rows):
                    t = start + first + row
                    heads.give_back(store, size, dq + 4 * d * row, cos + turn * t, sin + turn * t,
                                    d, rotary, interleaved, scale,
                                    d_qkv + qkv_row * t + size * d * h)  # fmt: skip
        for t in range(n):
            head = d_qkv + qkv_row * (start + t) + size * d * (n_heads + kv)
            angle = turn * (start + t)
            heads.give_back(store, size, dk + 4 * d * t, cos + angle, sin + angle, d, rotary,
                            interleaved, F(1), head)  # fmt: skip
            heads.give_back(store, size, dv + 4 * d * t, 0, 0, d, 0, 0, F(1),
                            head + size * d * n_kv)  # fmt: skip
        item = claim(block)


@callback(TASK)
def forward_4(block):
    _forward(widths.load_4, widths.store_4, 4, block)


@callback(TASK)
def forward_2(block):
    _forward(widths.load_2, widths.store_2, 2, block)


@callback(TASK)
def backward_4(block):
    _backward(widths.load_4, widths.store_4, 4, block)


@callback(TASK)
def backward_2(block):
    _backward(widths.load_2, widths.store_2, 2, block)
