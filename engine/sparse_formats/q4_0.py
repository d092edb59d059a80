"""4-bit weights without offsets, to be read in part."""

from __future__ import annotations

from functools import partial

from engine.kernels import pieces
from engine.kernels.compiler import callback
from engine.kernels.partial import INPUTS, ROWS, nibble_rows, skip_inputs
from engine.sparse_formats import _nibbles

SPREAD = True
pack_rows = partial(_nibbles.pack_rows, numbers_a_block=1)
pack_inputs = partial(_nibbles.pack_inputs, numbers_a_block=1)
stride = _nibbles.stride


@callback(ROWS)
def rows(weight, stride, blocks, rows, n, x, out):
    nibble_rows(False, weight, stride, blocks, rows, n, x, out)


@callback(INPUTS)
def inputs(weight, stride, tiles, blocks, active, first, last, out):
    skip_inputs(pieces.load_low_nibbles, pieces.load_high_nibbles, 16, 1, 0, -8,
                weight, stride, tiles, blocks, active, first, last, out)  # fmt: skip
