"""Listed blocks of a cache in f16, see engine/kernels/listed.py; compiled when they are needed."""

from __future__ import annotations

from engine.kernels import simd
from engine.kernels.attention import segment_layout
from engine.kernels.compiler import callback
from engine.kernels.listed import LISTED, Listed, attend_listed
from engine.kernels.ranges import RANGE, range_blocks


@callback(LISTED)
def attend(cache, width, queries, heads, blocks, n_blocks, n_ahead, n_slots, scale, softcap,
           scores, out):  # fmt: skip
    layout = segment_layout(width, 2, 0)
    listed = Listed(cache, width, queries, heads, blocks, n_blocks, n_ahead, n_slots, scale,
                    softcap, scores)  # fmt: skip
    attend_listed(simd.load_f16, layout, listed, out)


@callback(RANGE)
def measure(cache, width, first, last, ranges):
    range_blocks(simd.load_f16, segment_layout(width, 2, 0), cache, width, first, last, ranges)
