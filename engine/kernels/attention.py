"""Attention over the cache: rotation, the write of new keys and values, and the weighted sum.

A row of the cache is `width` numbers, head_dim rounded up to 16 with zeros. Values lie slot after
slot. Keys lie in blocks of 16 slots, [width][16], so that a lane is a slot and a score needs no sum
over lanes. A token sees a run of slots [first, stop) and, in a search with several beams, a path of
more. Sums follow a key's index in what the token sees: a path counts like a run, to the bit.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from engine.kernels import simd
from engine.kernels.activations import exponential
from engine.kernels.compiler import kernel

F = np.float32
_AHEAD = 8192  # bytes between what is read and what is asked for; without it a third slower
_MASKED = F(-1e30)  # not -inf: -inf - -inf is NaN


@kernel
def normalise_head(head, weight, eps, head_dim):
    """RMS norm of one head in place (Qwen3); float32 (head_dim,)."""
    squares = F(0)
    for i in range(head_dim):
        squares += simd.get_f32(head + 4 * i) * simd.get_f32(head + 4 * i)
    scale = F(1) / np.sqrt(squares / F(head_dim) + F(eps))
    for i in range(head_dim):
        value = simd.get_f32(head + 4 * i) * scale * simd.get_f32(weight + 4 * i)
        simd.set_f32(head + 4 * i, value)


@kernel
def rotate(head, cos, sin, rotary_dim, interleaved):
    """Rotate pairs of one head in place; cos and sin: addresses of (rotary_dim / 2,) float32."""
    half = rotary_dim // 2
    step, apart = (2, 1) if interleaved else (1, half)
    for i in range(half):
        a, b = head + 4 * step * i, head + 4 * (step * i + apart)
        c, s = simd.get_f32(cos + 4 * i), simd.get_f32(sin + 4 * i)
        x, y = simd.get_f32(a), simd.get_f32(b)
        simd.set_f32(a, x * c - y * s)
        simd.set_f32(b, y * c + x * s)


@kernel
def copy_head(source, bias, clip, head_dim, out):
    """out = clip(source + bias); a bias address of 0 is none, a clip of 0 is off."""
    for i in range(head_dim):
        value = simd.get_f32(source + 4 * i)
        if bias != 0:
            value += simd.get_f32(bias + 4 * i)
        if clip > 0:
            value = min(max(value, F(-clip)), F(clip))
        simd.set_f32(out + 4 * i, value)


@kernel
def store_key(head, keys, slot, head_dim, width):
    """Scatter one rotated key, float32 (head_dim,), into its block."""
    at = keys + 64 * width * (slot >> 4) + 4 * (slot & 15)
    for i in range(head_dim):
        simd.set_f32(at + 64 * i, simd.get_f32(head + 4 * i))


@kernel
def _score_block(q, block, width, ahead):
    """Scores of a block's 16 keys; what lies `ahead` bytes further is asked for meanwhile."""
    a0 = a1 = a2 = a3 = simd.zero_f32()  # four sums, because one would wait for itself
    for i in range(0, width, 4):
        at, row = q + 4 * i, block + 64 * i
        for line in range(0, 256, 64):
            simd.prefetch(row + ahead + line)
        a0 = simd.fma(simd.splat(simd.get_f32(at)), simd.load_f32(row), a0)
        a1 = simd.fma(simd.splat(simd.get_f32(at + 4)), simd.load_f32(row + 64), a1)
        a2 = simd.fma(simd.splat(simd.get_f32(at + 8)), simd.load_f32(row + 128), a2)
        a3 = simd.fma(simd.splat(simd.get_f32(at + 12)), simd.load_f32(row + 192), a3)
    return simd.add(simd.add(a0, a1), simd.add(a2, a3))


@kernel
def _score_block_of_four(q, block, width, ahead, out, out_row):
    """_score_block for four queries through one read of the keys; q: their four addresses."""
    q0, q1, q2, q3 = q
    a0 = a1 = a2 = a3 = simd.zero_f32()
    b0 = b1 = b2 = b3 = simd.zero_f32()
    c0 = c1 = c2 = c3 = simd.zero_f32()
    d0 = d1 = d2 = d3 = simd.zero_f32()
    for i in range(0, 4 * width, 16):
        row = block + 16 * i
        for line in range(0, 256, 64):
            simd.prefetch(row + ahead + line)
        key = simd.load_f32(row)
        a0 = simd.fma(simd.splat(simd.get_f32(q0 + i)), key, a0)
        b0 = simd.fma(simd.splat(simd.get_f32(q1 + i)), key, b0)
        c0 = simd.fma(simd.splat(simd.get_f32(q2 + i)), key, c0)
        d0 = simd.fma(simd.splat(simd.get_f32(q3 + i)), key, d0)
        key = simd.load_f32(row + 64)
        a1 = simd.fma(simd.splat(simd.get_f32(q0 + i + 4)), key, a1)
        b1 = simd.fma(simd.splat(simd.get_f32(q1 + i + 4)), key, b1)
        c1 = simd.fma(simd.splat(simd.get_f32(q2 + i + 4)), key, c1)
        d1 = simd.fma(simd.splat(simd.get_f32(q3 + i + 4)), key, d1)
        key = simd.load_f32(row + 128)
        a2 = simd.fma(simd.splat(simd.get_f32(q0 + i + 8)), key, a2)
        b2 = simd.fma(simd.splat(simd.get_f32(q1 + i + 8)), key, b2)
        c2 = simd.fma(simd.splat(simd.get_f32(q2 + i + 8)), key, c2)
        d2 = simd.fma(simd.splat(simd.get_f32(q3 + i + 8)), key, d2)
        key = simd.load_f32(row + 192)
        a3 = simd.fma(simd.splat(simd.get_f32(q0 + i + 12)), key, a3)
        b3 = simd.fma(simd.splat(simd.get_f32(q1 + i + 12)), key, b3)
        c3 = simd.fma(simd.splat(simd.get_f32(q2 + i + 12)), key, c3)
        d3 = simd.fma(simd.splat(simd.get_f32(q3 + i + 12)), key, d3)
    simd.store_f32(out, simd.add(simd.add(a0, a1), simd.add(a2, a3)))
    simd.store_f32(out + out_row, simd.add(simd.add(b0, b1), simd.add(b2, b3)))
    simd.store_f32(out + 2 * out_row, simd.add(simd.add(c0, c1), simd.add(c2, c3)))
    simd.store_f32(out + 3 * out_row, simd.add(simd.add(d0, d1), simd.add(d2, d3)))


@kernel
def _score(q, keys, slot, width):
    """The score of one key, in the order of _score_block."""
    column = keys + 64 * width * (slot >> 4) + 4 * (slot & 15)
    a0 = a1 = a2 = a3 = F(0)
    for i in range(0, width, 4):
        at, row = q + 4 * i, column + 64 * i
        a0 = simd.fma_scalar(simd.get_f32(at), simd.get_f32(row), a0)
        a1 = simd.fma_scalar(simd.get_f32(at + 4), simd.get_f32(row + 64), a1)
        a2 = simd.fma_scalar(simd.get_f32(at + 8), simd.get_f32(row + 128), a2)
        a3 = simd.fma_scalar(simd.get_f32(at + 12), simd.get_f32(row + 192), a3)
    return (a0 + a1) + (a2 + a3)


class View(NamedTuple):
    """What a token sees of the keys and values that its heads share.

    Keys are counted by position: those of the run [first, stop) are their slots, those of the path
    follow at stop, stop + 1 …  A view begins with the block of `first`, the keys before masked.
    """

    keys: int  # address of slot 0
    values: int
    width: int
    window: int  # how many positions back it sees, its own included
    stop: int
    path: int  # address of int64 (n_path,) slots
    n_path: int
    position: int  # of the token
    scale: float


@kernel
def _of_token(view, t):
    """The view of the t-th token after the view's own, in a run of tokens."""
    return View(
        view.keys, view.values, view.width, view.window, view.stop + t,
        view.path, view.n_path, view.position + t, view.scale,
    )  # fmt: skip


@kernel
def _first(view):
    """Position of the oldest key in sight."""
    return min(max(0, view.position + 1 - view.window), view.stop + view.n_path)


@kernel
def _base(view):
    """Where the view begins: the first position of a block of the run."""
    return min(_first(view), view.stop) & -16


@kernel
def _slot(view, position):
    """The slot of the key at a position."""
    if position < view.stop:
        return position
    return simd.get_i64(view.path + 8 * (position - view.stop))


@kernel
def _finish_scores(q, view, slope, scores):
    """Add the path, the masks and the slope to a run's scores; returns the largest."""
    base, end = _base(view), view.stop + view.n_path
    skipped, n = _first(view) - base, end - base
    for position in range(view.stop, end):
        score = _score(q, view.keys, _slot(view, position), view.width)
        simd.set_f32(scores + 4 * (position - base), score)
    for j in range(skipped):
        simd.set_f32(scores + 4 * j, _MASKED)
    for j in range(n, (n + 15) & -16):
        simd.set_f32(scores + 4 * j, _MASKED)
    if slope != 0:
        for j in range(skipped, n):
            score = simd.get_f32(scores + 4 * j) * F(view.scale)
            score += slope * F(base + j - view.position)
            simd.set_f32(scores + 4 * j, score / F(view.scale))
    largest = simd.splat(_MASKED)
    for j in range(0, n, 16):
        largest = simd.maximum(largest, simd.load_f32(scores + 4 * j))
    return simd.max_lanes(largest)


@kernel
def _softmax(scores, n, largest, scale):
    """Scores (n, rounded up to 16) to e**(scale (score - largest)); returns 1 / their sum."""
    total = simd.zero_f32()
    shift, factor = simd.splat(largest), simd.splat(scale)
    for i in range(0, 4 * n, 64):
        value = exponential(simd.mul(simd.sub(simd.load_f32(scores + i), shift), factor))
        simd.store_f32(scores + i, value)
        total = simd.add(total, value)
    return F(1) / simd.sum_lanes(total)


_TILE = 64  # keys whose values stay in the first cache while all heads and columns use them


@kernel
def _add_tile(weights, view, start, stop, out):
    """out += weighted values of the keys at [start, stop); weights: the address of start's."""
    row = 4 * view.width
    run_stop = min(stop, view.stop)
    for i in range(0, row, 64):
        a0 = a1 = a2 = a3 = simd.zero_f32()
        key, at, w = start, view.values + start * row + i, weights
        while key + 4 <= run_stop:
            for line in range(4):
                simd.prefetch(at + (_TILE + line) * row)
            a0 = simd.fma(simd.splat(simd.get_f32(w)), simd.load_f32(at), a0)
            a1 = simd.fma(simd.splat(simd.get_f32(w + 4)), simd.load_f32(at + row), a1)
            a2 = simd.fma(simd.splat(simd.get_f32(w + 8)), simd.load_f32(at + 2 * row), a2)
            a3 = simd.fma(simd.splat(simd.get_f32(w + 12)), simd.load_f32(at + 3 * row), a3)
            at, w, key = at + 4 * row, w + 16, key + 4
        while key < stop:
            weight = simd.splat(simd.get_f32(w))
            value = simd.load_f32(view.values + _slot(view, key) * row + i)
            if key & 3 == 0:
                a0 = simd.fma(weight, value, a0)
            elif key & 3 == 1:
                a1 = simd.fma(weight, value, a1)
            elif key & 3 == 2:
                a2 = simd.fma(weight, value, a2)
            else:
                a3 = simd.fma(weight, value, a3)
            w, key = w + 4, key + 1
        total = simd.add(simd.add(a0, a1), simd.add(a2, a3))
        simd.store_f32(out + i, simd.add(simd.load_f32(out + i), total))


@kernel
def _query(q, q_row, row, n_heads, r):
    """Address of the query of row r, a (token, head) pair."""
    return q + r // n_heads * q_row + r % n_heads * row


@kernel
def attend(q, q_row, n_tokens, n_heads, view, slopes, scores, scores_row, out):
    """out = softmax(scale q·k + slope (key's position - position)) values.

    For n_tokens in a run, the first of which has `view`, and n_heads that share keys: a block of
    keys is read once for all of them.

    q        float32 (n_tokens, q_row bytes): n_heads of width each
    out      float32 (n_tokens, n_heads, width)
    slopes   address of float32 (n_heads,), or 0
    scores   scratch, float32 (n_tokens n_heads, scores_row bytes): room for all keys and 31 more
    """
    row, rows = 4 * view.width, n_tokens * n_heads
    begin, end = _base(view), view.stop + n_tokens - 1
    for block in range(begin, end, 16):
        at = view.keys + 4 * view.width * block
        r = 0
        while r < rows:
            own, last = _of_token(view, r // n_heads), _of_token(view, (r + 3) // n_heads)
            mine = scores + r * scores_row + 4 * (block - _base(own))
            ahead = _AHEAD if r == 0 else 0  # whoever reads a block first asks for what comes next
            if not _base(own) <= block < own.stop:
                r += 1
            elif r + 3 < rows and _base(last) == _base(own):
                four = (
                    _query(q, q_row, row, n_heads, r),
                    _query(q, q_row, row, n_heads, r + 1),
                    _query(q, q_row, row, n_heads, r + 2),
                    _query(q, q_row, row, n_heads, r + 3),
                )
                _score_block_of_four(four, at, view.width, ahead, mine, scores_row)
                r += 4
            else:
                query = _query(q, q_row, row, n_heads, r)
                simd.store_f32(mine, _score_block(query, at, view.width, ahead))
                r += 1
    for r in range(rows):
        t, head = r // n_heads, r % n_heads
        own, mine = _of_token(view, t), scores + r * scores_row
        slope = simd.get_f32(slopes + 4 * head) if slopes != 0 else F(0)
        largest = _finish_scores(_query(q, q_row, row, n_heads, r), own, slope, mine)
        n = own.stop + own.n_path - _base(own)
        inverse = simd.splat(_softmax(mine, n, largest, F(view.scale)))
        for j in range(0, 4 * n, 64):
            simd.store_f32(mine + j, simd.mul(simd.load_f32(mine + j), inverse))
        for i in range(0, row, 64):
            simd.store_f32(out + r * row + i, simd.zero_f32())
    for tile in range(begin & -_TILE, end + view.n_path, _TILE):
        for r in range(rows):
            own = _of_token(view, r // n_heads)
            start, stop = max(tile, _base(own)), min(tile + _TILE, own.stop + own.n_path)
            if start < stop:
                weights = scores + r * scores_row + 4 * (start - _base(own))
                _add_tile(weights, own, start, stop, out + r * row)
