"""4-bit weights with offsets, to be read in part."""

from __future__ import annotations

from functools import partial

from engine.kernels import pieces
from engine.kernels.compiler import callback
from engine.kernels.partial import INPUTS, ROWS, nibble_rows, skip_inputs
from engine.sparse_formats import _nibbles

SPREAD = True
pack_rows = partial(_nibbles.pack_rows, numbers_a_block=2)
pack_inputs = partial(_nibbles.pack_inputs, numbers_a_block=2)
stride = _nibbles.stride


@callback(ROWS)
def rows(weight, stride, blocks, rows, n, x, out):
    nibble_rows(True, weight, stride, blocks, rows, n, x, out)


@callback(INPUTS)
def inputs(weight, stride, tiles, blocks, active, first, last, out):
    skip_inputs(pieces.load_low_nibbles, pieces.load_high_nibbles, 16, 1, 1, 0,
                weight, stride, tiles, blocks, active, first, last, out)  # fmt: skip
