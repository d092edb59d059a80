"""Heads between the activations of a projection and the scratch of attention.

In scratch a head is float32, turned, and its turned pairs stand as (i, i + rotary_dim / 2) also
where they are neighbours in the model (Rope.interleaved): scores are the same in any order.
"""

from __future__ import annotations

from engine.kernels import simd
from engine.kernels.compiler import kernel
from engine.training.kernels import widths


@kernel
def take(load, size, head, cos, sin, head_dim, rotary_dim, interleaved, factor, out):
    """A head (D,) of activations, turned, times factor -> out (D,) float32."""
    half = rotary_dim // 2
    scale = simd.splat(factor)
    for i in range(0, half, 16):
        if interleaved:
            low, high = load(head + 2 * size * i), load(head + size * (2 * i + 16))
            x, y = widths.evens(low, high), widths.odds(low, high)
        else:
            x, y = load(head + size * i), load(head + size * (half + i))
        c = simd.mul(simd.load_f32(cos + 4 * i), scale)
        s = simd.mul(simd.load_f32(sin + 4 * i), scale)
        simd.store_f32(out + 4 * i, simd.sub(simd.mul(x, c), simd.mul(y, s)))
        simd.store_f32(out + 4 * (half + i), simd.fma(y, c, simd.mul(x, s)))
    for i in range(rotary_dim, head_dim, 16):
        simd.store_f32(out + 4 * i, simd.mul(load(head + size * i), scale))


@kernel
def give_back(store, size, source, cos, sin, head_dim, rotary_dim, interleaved, factor, head):
    """The gradient of take: source (D,) float32 of what was turned -> head (D,) activations."""
    half = rotary_dim // 2
    scale = simd.splat(factor)
    for i in range(0, half, 16):
        a, b = simd.load_f32(source + 4 * i), simd.load_f32(source + 4 * (half + i))
        c = simd.mul(simd.load_f32(cos + 4 * i), scale)
        s = simd.mul(simd.load_f32(sin + 4 * i), scale)
        x = simd.fma(a, c, simd.mul(b, s))
        y = simd.sub(simd.mul(b, c), simd.mul(a, s))
        if interleaved:
            store(head + 2 * size * i, widths.paired_low(x, y))
            store(head + size * (2 * i + 16), widths.paired_high(x, y))
        else:
            store(head + size * i, x)
            store(head + size * (half + i), y)
    for i in range(rotary_dim, head_dim, 16):
        store(head + size * i, simd.mul(simd.load_f32(source + 4 * i), scale))


@kernel
def transpose(source, n_rows, n_columns, row_bytes, out, out_bytes):
    """float32 (n_rows, n_columns) at row_bytes a row -> its transpose at out_bytes a row."""
    for i in range(n_rows):
        for j in range(n_columns):
            value = simd.get_f32(source + row_bytes * i + 4 * j)
            simd.set_f32(out + out_bytes * j + 4 * i, value)


@kernel
def clear(at, n):
    """n float32 to 0, a multiple of 16."""
    for i in range(0, 4 * n, 64):
        simd.store_f32(at + i, simd.zero_f32())
