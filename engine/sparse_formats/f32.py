"""float32, to be read in part."""

from __future__ import annotations

from functools import partial

import numpy as np

from engine.kernels import simd
from engine.kernels.compiler import block, callback
from engine.kernels.partial import INPUTS, ROWS, skip_inputs, value_rows
from engine.sparse_formats import _floats

SPREAD = False
pack_rows = partial(_floats.pack_rows, number=np.float32)
pack_inputs = partial(_floats.pack_inputs, number=np.float32)
stride = partial(_floats.stride, number=np.float32)


@block
def _high(at):
    return simd.load_f32(at + 64)


@callback(ROWS)
def rows(weight, stride, blocks, rows, n, x, out):
    value_rows(simd.load_f32, 4, False, weight, stride, blocks, rows, n, x, out)


@callback(INPUTS)
def inputs(weight, stride, tiles, blocks, active, first, last, out):
    skip_inputs(simd.load_f32, _high, 128, 0, 0, 0,
                weight, stride, tiles, blocks, active, first, last, out)  # fmt: skip
