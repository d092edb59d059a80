"""How many multiplications of bytes a second the processor does: the limit of reading prompts.

The sums stay in registers and one vector is loaded for all of them, so that little but the engine's
own dot product of bytes (simd.dot4) costs. Twelve sums hide the latency of an instruction that does
all of it; where it is made of several, four fit into the registers: the better is the limit.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numba
import numpy as np

from engine.kernels.dot import dot4
from engine.kernels.simd import add_i32, address_of, load_u8, sum_lanes_i32, zero_i32

_PRODUCTS = 64  # of one dot4
_STEPS = 1_000_000
_VECTORS = 32  # 16 that are read in turns and one for each sum, all in the first cache


@lru_cache(maxsize=1)
def _kernels() -> list[tuple[int, Callable[..., Any]]]:
    """(number of sums, kernel of an array of bytes and a number of steps)."""

    # a vector of its own for each sum: a compiler would multiply the same two only once
    @numba.njit(nogil=True)
    def four(values, n_steps):  # type: ignore[no-untyped-def]
        base = address_of(values)
        s0, s1, s2, s3 = (load_u8(base + 1024), load_u8(base + 1088), load_u8(base + 1152),
                          load_u8(base + 1216))  # fmt: skip
        a = b = c = d = zero_i32()
        for i in range(n_steps):
            u = load_u8(base + 64 * (i % 16))
            a, b, c, d = dot4(a, u, s0), dot4(b, u, s1), dot4(c, u, s2), dot4(d, u, s3)
        return sum_lanes_i32(add_i32(add_i32(a, b), add_i32(c, d)))

    @numba.njit(nogil=True)
    def twelve(values, n_steps):  # type: ignore[no-untyped-def]
        base = address_of(values)
        s0, s1, s2, s3 = (load_u8(base + 1024), load_u8(base + 1088), load_u8(base + 1152),
                          load_u8(base + 1216))  # fmt: skip
        s4, s5, s6, s7 = (load_u8(base + 1280), load_u8(base + 1344), load_u8(base + 1408),
                          load_u8(base + 1472))  # fmt: skip
        s8, s9, s10, s11 = (load_u8(base + 1536), load_u8(base + 1600), load_u8(base + 1664),
                            load_u8(base + 1728))  # fmt: skip
        a = b = c = d = e = f = g = h = j = k = m = n = zero_i32()
        for i in range(n_steps):
            u = load_u8(base + 64 * (i % 16))
            a, b, c, d = dot4(a, u, s0), dot4(b, u, s1), dot4(c, u, s2), dot4(d, u, s3)
            e, f, g, h = dot4(e, u, s4), dot4(f, u, s5), dot4(g, u, s6), dot4(h, u, s7)
            j, k, m, n = dot4(j, u, s8), dot4(k, u, s9), dot4(m, u, s10), dot4(n, u, s11)
        first = add_i32(add_i32(add_i32(a, b), add_i32(c, d)), add_i32(add_i32(e, f), g))
        return sum_lanes_i32(add_i32(first, add_i32(add_i32(h, j), add_i32(add_i32(k, m), n))))

    return [(4, four), (12, twelve)]


def int8_peak(threads: int) -> float:
    """Multiplications in billions a second on that many threads, best of five passes."""
    values = np.ones(64 * _VECTORS, np.uint8)
    best = 0.0
    for n_sums, kernel in _kernels():
        kernel(values, 1)
        with ThreadPoolExecutor(threads) as pool:
            seconds = min(_timed(pool, kernel, values, threads) for _ in range(5))
        best = max(best, threads * n_sums * _PRODUCTS * _STEPS / seconds / 1e9)
    return best


def _timed(
    pool: ThreadPoolExecutor, kernel: Callable[..., Any], values: Any, threads: int
) -> float:
    started = time.perf_counter()
    for job in [pool.submit(kernel, values, _STEPS) for _ in range(threads)]:
        job.result()
    return time.perf_counter() - started
