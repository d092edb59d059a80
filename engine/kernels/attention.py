"""Attention over the cache: rotation, the write of new keys and values, and the weighted sum.

A head's keys lie one after another, `width` floats each (head_dim rounded up to 16 with zeros). A
token sees a run of slots [first, stop) and, in a search with several beams, a path of more.
"""

from __future__ import annotations

import numpy as np

from engine.kernels import simd
from engine.kernels.activations import exponential
from engine.kernels.compiler import kernel

F = np.float32
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
def _dot(a, b, width):
    total = simd.zero_f32()
    for i in range(0, 4 * width, 64):
        total = simd.fma(simd.load_f32(a + i), simd.load_f32(b + i), total)
    return simd.sum_lanes(total)


@kernel
def _softmax(scores, n, largest):
    """Scores (n, rounded up to 16) to e**(score - largest); returns 1 / their sum."""
    total = simd.zero_f32()
    shift = simd.splat(largest)
    for i in range(0, 4 * n, 64):
        value = exponential(simd.sub(simd.load_f32(scores + i), shift))
        simd.store_f32(scores + i, value)
        total = simd.add(total, value)
    return F(1) / simd.sum_lanes(total)


@kernel
def attend(q, keys, values, width, first, stop, path, n_path, slope, position, scale, scores, out):
    """out = softmax(scale q·k + slope (key's position - position)) values, for one head and token.

    q, out   float32 (width,)        keys, values   the head's slot 0
    path     int64 (n_path,) slots, at positions stop, stop + 1 …
    scores   scratch, float32 (stop - first + n_path rounded up to 16,)
    """
    row = 4 * width
    n_run = stop - first
    n = n_run + n_path
    largest = _MASKED
    for j in range(n):
        slot = first + j if j < n_run else simd.get_i64(path + 8 * (j - n_run))
        score = _dot(q, keys + slot * row, width) * scale + slope * F(first + j - position)
        simd.set_f32(scores + 4 * j, score)
        largest = max(largest, score)
    for j in range(n, (n + 15) // 16 * 16):
        simd.set_f32(scores + 4 * j, _MASKED)
    inverse = simd.splat(_softmax(scores, n, largest))
    for i in range(0, row, 64):
        a0 = a1 = a2 = a3 = simd.zero_f32()
        at = values + first * row + i
        j = 0
        while j + 4 <= n_run:  # four sums, because one would wait for itself at every key
            a0 = simd.fma(simd.splat(simd.get_f32(scores + 4 * j)), simd.load_f32(at), a0)
            a1 = simd.fma(simd.splat(simd.get_f32(scores + 4 * j + 4)), simd.load_f32(at + row), a1)
            a2 = simd.fma(
                simd.splat(simd.get_f32(scores + 4 * j + 8)), simd.load_f32(at + 2 * row), a2
            )
            a3 = simd.fma(
                simd.splat(simd.get_f32(scores + 4 * j + 12)), simd.load_f32(at + 3 * row), a3
            )
            at += 4 * row
            j += 4
        while j < n:  # in the same order as above, so that a path counts like a run
            slot = first + j if j < n_run else simd.get_i64(path + 8 * (j - n_run))
            weight = simd.splat(simd.get_f32(scores + 4 * j))
            value = simd.load_f32(values + slot * row + i)
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
        simd.store_f32(out + i, simd.mul(total, inverse))
