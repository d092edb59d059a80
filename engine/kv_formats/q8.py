"""int8 with a float32 scale for each key and each value: a quarter of float32's bytes."""

from __future__ import annotations

import numpy as np

from engine.kernels import simd
from engine.kernels.attention import (
    ATTEND,
    STORE,
    View,
    attend_segment,
    key_address,
    scale_address,
    segment_layout,
    value_address,
)
from engine.kernels.compiler import callback, kernel

NUMBER = np.dtype(np.int8)
SCALED = 1
F = np.float32


@callback(ATTEND)
def attend(cache, width, queries, tokens, heads, positions, visible, path, n_path, window, slopes,
           scale, softcap, scores, segment, ahead, out):  # fmt: skip
    view = View(cache, width, queries, tokens, heads, positions, visible, path, n_path, window,
                slopes, scale, softcap, scores)  # fmt: skip
    layout = segment_layout(width, 1, SCALED)
    attend_segment(simd.load_i8, simd.get_i8, layout, view, segment, ahead, out)


@kernel
def _store(vector, head_dim, at, step, scale_at):
    """One vector to every step-th byte."""
    largest = F(0)
    for i in range(head_dim):
        largest = max(largest, abs(simd.get_f32(vector + 4 * i)))
    simd.set_f32(scale_at, largest * F(1 / 127))
    inverse = F(0)
    if largest > 0:
        inverse = F(127) / largest
    for i in range(head_dim):
        simd.set_i8(at + step * i, np.rint(simd.get_f32(vector + 4 * i) * inverse))


@callback(STORE)
def store_key(vector, cache, width, slot, head_dim):
    layout = segment_layout(width, 1, SCALED)
    scale_at = scale_address(cache, layout, layout.key_scales, slot)
    _store(vector, head_dim, key_address(cache, layout, width, slot), layout.sixteen, scale_at)


@callback(STORE)
def store_value(vector, cache, width, slot, head_dim):
    layout = segment_layout(width, 1, SCALED)
    scale_at = scale_address(cache, layout, layout.value_scales, slot)
    _store(vector, head_dim, value_address(cache, layout, slot), 1, scale_at)
