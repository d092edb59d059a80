"""How fast this machine reads memory: the limit of decoding.

Only the standard library at import, as in machine.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from statistics import median
from typing import Any, NamedTuple

_PASS_BYTES = 1 << 29  # read in one timed pass: some 20 ms


class Bandwidth(NamedTuple):
    """How fast an array of n_bytes is read, at one time."""

    n_bytes: int
    threads: int
    gb_s: float


def read_bandwidths(n_bytes: int, threads: Iterable[int]) -> list[Bandwidth]:
    """How fast an array of n_bytes is read on each number of threads, now.

    The median of five passes, in the way of reading that is the faster one now.
    """
    import numpy as np

    words = np.ones(max(n_bytes // 8, 1), np.int64)
    repeats = max(1, _PASS_BYTES // words.nbytes)
    for read in _readers():
        read(words[:8])
    found = []
    for n in threads:
        with ThreadPoolExecutor(n) as pool:
            parts = np.array_split(words, n)
            seconds = min(
                median(_timed(pool, read, parts, repeats) for _ in range(5)) for read in _readers()
            )
        found.append(Bandwidth(n_bytes, n, repeats * words.nbytes / seconds / 1e9))
    return found


def _timed(
    pool: ThreadPoolExecutor, read: Callable[[Any], int], parts: list[Any], repeats: int
) -> float:
    started = time.perf_counter()
    # the repeats stand out here: inside the kernel the compiler would read once and multiply
    jobs = [pool.submit(lambda p: [read(p) for _ in range(repeats)], part) for part in parts]
    for job in jobs:
        job.result()
    return time.perf_counter() - started


@lru_cache(maxsize=1)
def _readers() -> tuple[Callable[[Any], int], ...]:
    """Kernels that read an int64 array and do next to nothing with it.

    In one stream and in four: which one is faster changes with the size and with the hour.
    """
    import numba

    @numba.njit(nogil=True)
    def one(words):  # type: ignore[no-untyped-def]
        total = 0
        for i in range(words.size):
            total += words[i]
        return total

    @numba.njit(nogil=True)
    def four(words):  # type: ignore[no-untyped-def]
        n = words.size // 4
        a = b = c = d = 0
        for i in range(n):
            a += words[i]
            b += words[n + i]
            c += words[2 * n + i]
            d += words[3 * n + i]
        return a + b + c + d

    return one, four


def typical(bandwidths: Iterable[Bandwidth]) -> list[Bandwidth]:
    """The median for each size and number of threads, as the rates beside them are medians.

    The best would be of a moment in which other machines left the memory to this one.
    """
    found: dict[tuple[int, int], list[float]] = {}
    for n_bytes, threads, gb_s in bandwidths:
        found.setdefault((n_bytes, threads), []).append(gb_s)
    return [Bandwidth(*alike, median(values)) for alike, values in found.items()]


def read_gb_s(bandwidths: Iterable[Bandwidth], n_bytes: int, threads: int) -> float:
    """The typical one of this size and number of threads, which must have been measured."""
    return next(b.gb_s for b in typical(bandwidths) if b[:2] == (n_bytes, threads))


def spread(one: Bandwidth, bandwidths: Sequence[Bandwidth]) -> dict[str, float]:
    """The lowest and the highest of the same size and number of threads."""
    alike = [b.gb_s for b in bandwidths if b[:2] == one[:2]]
    return {"low": round(min(alike), 1), "high": round(max(alike), 1)}
