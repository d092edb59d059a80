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
    """What one token sees of one head's keys and values, addresses of slot 0."""

    keys: int
    values: int
    width: int
    first: int  # the run of slots [first, stop)
    stop: int
    path: int  # address of int64 (n_path,) slots, at positions stop, stop + 1 …
    n_path: int
    position: int  # of the token
    scale: float


@kernel
def _slot(view, j):
    """The slot of key j of the view; j counts from the beginning of first's block."""
    slot = (view.first & -16) + j
    return slot if slot < view.stop else simd.get_i64(view.path + 8 * (slot - view.stop))


@kernel
def _scores(q, view, slope, scores, is_first):
    """Scores of all keys of the view, masked before first and after the last; the largest of them.

    is_first says that no other head has read these keys: they are asked for in advance.
    """
    base, ahead = view.first & -16, _AHEAD if is_first else 0
    skipped, n = view.first - base, view.stop - base + view.n_path
    for j in range(0, view.stop - base, 16):
        block = view.keys + 64 * view.width * ((base + j) >> 4)
        simd.store_f32(scores + 4 * j, _score_block(q, block, view.width, ahead))
    for j in range(view.stop - base, n):
        simd.set_f32(scores + 4 * j, _score(q, view.keys, _slot(view, j), view.width))
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
def _add_tile(scores, view, start, stop, out):
    """out += weighted values of keys [start, stop) of the view."""
    row = 4 * view.width
    run_stop = min(stop, view.stop - (view.first & -16))
    for i in range(0, row, 64):
        a0 = a1 = a2 = a3 = simd.zero_f32()
        j = start
        at = view.values + ((view.first & -16) + j) * row + i
        while j + 4 <= run_stop:
            w = scores + 4 * j
            for key in range(4):
                simd.prefetch(at + (_TILE + key) * row)
            a0 = simd.fma(simd.splat(simd.get_f32(w)), simd.load_f32(at), a0)
            a1 = simd.fma(simd.splat(simd.get_f32(w + 4)), simd.load_f32(at + row), a1)
            a2 = simd.fma(simd.splat(simd.get_f32(w + 8)), simd.load_f32(at + 2 * row), a2)
            a3 = simd.fma(simd.splat(simd.get_f32(w + 12)), simd.load_f32(at + 3 * row), a3)
            at += 4 * row
            j += 4
        while j < stop:
            weight = simd.splat(simd.get_f32(scores + 4 * j))
            value = simd.load_f32(view.values + _slot(view, j) * row + i)
            if j & 3 == 0:
                a0 = simd.fma(weight, value, a0)
            elif j & 3 == 1:
                a1 = simd.fma(weight, value, a1)
            elif j & 3 == 2:
                a2 = simd.fma(weight, value, a2)
            else:
                a3 = simd.fma(weight, value, a3)
            j += 1
        total = simd.add(simd.add(a0, a1), simd.add(a2, a3))
        simd.store_f32(out + i, simd.add(simd.load_f32(out + i), total))


@kernel
def attend(q, n_heads, view, slopes, scores, scores_row, out):
    """out = softmax(scale q·k + slope (key's position - position)) values; the heads share keys.

    q, out   float32 (n_heads, width)
    slopes   address of float32 (n_heads,), or 0
    scores   scratch, float32 (n_heads, scores_row bytes): room for all keys of the view and 31 more
    """
    row = 4 * view.width
    n = view.stop - (view.first & -16) + view.n_path
    for head in range(n_heads):
        slope = F(0)
        if slopes != 0:
            slope = simd.get_f32(slopes + 4 * head)
        own = scores + head * scores_row
        largest = _scores(q + head * row, view, slope, own, head == 0)
        inverse = simd.splat(_softmax(own, n, largest, F(view.scale)))
        for j in range(0, 4 * n, 64):
            simd.store_f32(own + j, simd.mul(simd.load_f32(own + j), inverse))
        for i in range(0, row, 64):
            simd.store_f32(out + head * row + i, simd.zero_f32())
    for start in range(0, n, _TILE):
        for head in range(n_heads):
            own = scores + head * scores_row
            _add_tile(own, view, start, min(start + _TILE, n), out + head * row)
