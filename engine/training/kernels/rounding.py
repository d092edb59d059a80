"""Rows of activations to whole numbers, each with a scale of its own. Items are runs of rows."""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types

from engine.kernels import simd, vectors
from engine.kernels.compiler import block, callback, kernel
from engine.kernels.vectors import I32x16, operation
from engine.training.kernels import widths
from engine.training.kernels.tasks import TASK, claim, whole

F = np.float32
FINE = F(254)  # steps of the second byte in one step of the first


@operation(types.void, types.int64, I32x16)
def _store_i16(builder, address, value):
    """16 int32 as 16 int16; values must fit."""
    vectors.store(builder, address, builder.trunc(value, ir.VectorType(vectors.i16, 16)))


@block
def _keep_1(address, value):
    simd.store_i8(address, value)


@block
def _keep_2(address, value):
    _store_i16(address, value)


@kernel
def _quantize(load, size, keep, kept, block):
    """x (T, N), factors (N,) float32 or 0 -> q (T, N), scales (T,): x * factors = scale * q.

    fine (T, N) int8 or 0: what is left, x * factors = scale * (q + fine / FINE).
    most: the largest |q| of a row.  kept: bytes of a number of q.
    """
    x, factors, q, fine, scales = (
        whole(block, 0), whole(block, 1), whole(block, 2), whole(block, 3), whole(block, 4),
    )  # fmt: skip
    most, n_rows, width, run = (
        F(whole(block, 5)), whole(block, 6), whole(block, 7), whole(block, 8),
    )  # fmt: skip
    item = claim(block)
    while item >= 0:
        for row in range(run * item, min(run * (item + 1), n_rows)):
            at, out = x + size * width * row, q + kept * width * row
            largest = simd.zero_f32()
            for i in range(0, width, 16):
                value = load(at + size * i)
                if factors != 0:
                    value = simd.mul(value, simd.load_f32(factors + 4 * i))
                largest = simd.maximum(largest, simd.absolute(value))
            top = simd.max_lanes(largest)
            simd.set_f32(scales + 4 * row, top / most)
            inverse = simd.splat(most / max(top, F(1e-30)))
            for i in range(0, width, 16):
                value = load(at + size * i)
                if factors != 0:
                    value = simd.mul(value, simd.load_f32(factors + 4 * i))
                value = simd.mul(value, inverse)
                number = simd.to_i32(value)
                keep(out + kept * i, number)
                if fine != 0:
                    rest = simd.mul(simd.sub(value, simd.to_f32(number)), simd.splat(FINE))
                    simd.store_i8(fine + width * row + i, simd.to_i32(rest))
        item = claim(block)


@callback(TASK)
def int8_of_4(block):
    _quantize(widths.load_4, 4, _keep_1, 1, block)


@callback(TASK)
def int8_of_2(block):
    _quantize(widths.load_2, 2, _keep_1, 1, block)


@callback(TASK)
def int16_of_4(block):
    _quantize(widths.load_4, 4, _keep_2, 2, block)
