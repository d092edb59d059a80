"""One head's row before it meets the cache: bias and clip, norm, rotation. float32 (head_dim,)."""

from __future__ import annotations

import numpy as np

from engine.kernels import simd
from engine.kernels.compiler import kernel

F = np.float32


@kernel
def normalise_head(head, weight, eps, head_dim):
    """RMS norm of one head in place (Qwen3)."""
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
