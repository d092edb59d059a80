"""What a task is called with, and how its threads share the work.

A block of int64: how many items are taken, how many there are, how many threads have come, and the
arguments; a float argument is the bits of a float32. Threads take items one by one, so that one
that lost its core to another program holds nobody up.
"""

from __future__ import annotations

from numba import types

from engine.kernels import simd
from engine.kernels.compiler import kernel
from engine.kernels.sync import fetch_add

TASK = types.void(types.int64)
N_COUNTERS = 3


@kernel
def claim(block):
    """The number of the next item, -1 when there are none."""
    item = fetch_add(block, 1)
    return item if item < simd.get_i64(block + 8) else -1


@kernel
def thread_number(block):
    """0, 1 … for the threads in the order they come; to be called once."""
    return fetch_add(block + 16, 1)


@kernel
def whole(block, index):
    """An argument that is an address or a whole number."""
    return simd.get_i64(block + 8 * (3 + index))


@kernel
def real(block, index):
    """An argument that is a float32."""
    return simd.get_f32(block + 8 * (3 + index))
