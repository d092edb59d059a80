"""Softmax over the vocabulary: what a loss needs of logits, and their gradient. Items are rows.

Letters: n rows, V vocab_size.
"""

from __future__ import annotations

import math

import numpy as np

from engine.kernels import simd
from engine.kernels.activations import exponential
from engine.kernels.compiler import callback
from engine.training.kernels.tasks import TASK, claim, real, thread_number, whole

F = np.float32


@callback(TASK)
def measure(block):
    """logits (n, V), targets (n,) int64 -> log_sums (n,), found (n,): the target's logit, and
    hits (n,) float32: 1 where none is larger."""
    logits, targets, log_sums, found, hits, width = (
        whole(block, 0), whole(block, 1), whole(block, 2), whole(block, 3), whole(block, 4),
        whole(block, 5),
    )  # fmt: skip
    row = claim(block)
    while row >= 0:
        at = logits + 4 * width * row
        end = 4 * (width // 16 * 16)
        largest = simd.splat(F(-1e30))
        for i in range(0, end, 64):
            largest = simd.maximum(largest, simd.load_f32(at + i))
        top = simd.max_lanes(largest)
        for i in range(end, 4 * width, 4):
            top = max(top, simd.get_f32(at + i))
        total = simd.zero_f32()
        for i in range(0, end, 64):
            total = simd.add(total, exponential(simd.sub(simd.load_f32(at + i), simd.splat(top))))
        sum_ = simd.sum_lanes(total)
        for i in range(end, 4 * width, 4):
            sum_ += F(math.exp(simd.get_f32(at + i) - top))
        target = simd.get_f32(at + 4 * simd.get_i64(targets + 8 * row))
        simd.set_f32(log_sums + 4 * row, top + F(math.log(sum_)))
        simd.set_f32(found + 4 * row, target)
        simd.set_f32(hits + 4 * row, F(1) if target >= top else F(0))
        row = claim(block)


@callback(TASK)
def differentiate(block):
    """logits (n, V) -> (p - y) * factor in their place; |p - y| * factor summed over a thread's
    rows is added to mass (threads, V)."""
    logits, targets, log_sums, mass, width, factor = (
        whole(block, 0), whole(block, 1), whole(block, 2), whole(block, 3), whole(block, 4),
        real(block, 5),
    )  # fmt: skip
    sums = mass + 4 * width * thread_number(block)
    row = claim(block)
    while row >= 0:
        at = logits + 4 * width * row
        log_sum = simd.get_f32(log_sums + 4 * row)
        end = 4 * (width // 16 * 16)
        place = 4 * simd.get_i64(targets + 8 * row)
        p = F(math.exp(simd.get_f32(at + place) - log_sum))
        for i in range(0, end, 64):
            value = exponential(simd.sub(simd.load_f32(at + i), simd.splat(log_sum)))
            value = simd.mul(value, simd.splat(factor))
            simd.store_f32(at + i, value)
            simd.store_f32(sums + i, simd.add(simd.load_f32(sums + i), value))
        for i in range(end, 4 * width, 4):
            rest = F(math.exp(simd.get_f32(at + i) - log_sum)) * factor
            simd.set_f32(at + i, rest)
            simd.set_f32(sums + i, simd.get_f32(sums + i) + rest)
        simd.set_f32(at + place, (p - F(1)) * factor)
        simd.set_f32(sums + place, simd.get_f32(sums + place) + (F(1) - F(2) * p) * factor)
        row = claim(block)
