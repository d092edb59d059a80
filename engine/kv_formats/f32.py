"""float32: as computed. For comparisons; the others are faster and half the size or less."""

from __future__ import annotations

import numpy as np

from engine.kernels import simd
from engine.kernels.attention import ATTEND, STORE, View, attend_segment, segment_layout
from engine.kernels.compiler import callback
from engine.kv_formats import _floats

NUMBER = np.dtype(np.float32)
SCALED = 0
_BYTES = 4


@callback(ATTEND)
def attend(cache, width, queries, tokens, heads, positions, visible, path, n_path, window, slopes,
           scale, softcap, scores, segment, ahead, out):  # fmt: skip
    view = View(cache, width, queries, tokens, heads, positions, visible, path, n_path, window,
                slopes, scale, softcap, scores)  # fmt: skip
    layout = segment_layout(width, _BYTES, SCALED)
    attend_segment(simd.load_f32, simd.get_f32, layout, view, segment, ahead, out)


@callback(STORE)
def store_key(vector, cache, width, slot, head_dim):
    _floats.store_key(simd.set_f32, _BYTES, vector, cache, width, slot, head_dim)


@callback(STORE)
def store_value(vector, cache, width, slot, head_dim):
    _floats.store_value(simd.set_f32, _BYTES, vector, cache, width, slot, head_dim)
