"""SQLite's write-ahead log, read beside SQLite: which pages it holds newer copies of.

Format: https://www.sqlite.org/fileformat2.html#the_write_ahead_log. A frame counts when its salts
are the header's and its checksum follows from all frames before it, as in SQLite's own recovery.
"""

from __future__ import annotations

import struct
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint32]

SUFFIX = "-wal"
_HEADER, _FRAME_HEADER = 32, 24
_LITTLE, _BIG = 0x377F0682, 0x377F0683
_AT_ONCE = 1024  # frames read at once: 4 MB


def committed_pages(path: Path) -> set[int]:
    """The pages (from 0) of the database `path` that commits in its log have changed."""
    try:
        with path.with_name(path.name + SUFFIX).open("rb") as log:
            header = log.read(_HEADER)
            if len(header) < _HEADER:
                return set()
            magic, _, page_size = struct.unpack(">III", header[:12])
            if magic not in (_LITTLE, _BIG) or not 512 <= page_size <= 65536:
                return set()
            order = "<u4" if magic == _LITTLE else ">u4"
            state = _advance((0, 0), np.frombuffer(header[:24], order).astype(np.uint32)[None])[0]
            if state != struct.unpack(">II", header[24:]):
                return set()
            pages: set[int] = set()
            waiting: list[int] = []  # pages of a commit whose last frame has not come
            size = _FRAME_HEADER + page_size
            while block := log.read(_AT_ONCE * size):
                frames = np.frombuffer(block[: len(block) // size * size], np.uint8)
                frames = frames.reshape(-1, size)
                n_valid, state = _valid(frames, header[16:24], order, state)
                numbers = frames[:n_valid, :8].copy().view(">u4")
                for page, n_pages in numbers.tolist():
                    waiting.append(page - 1)
                    if n_pages:  # the last frame of a commit
                        pages.update(waiting)
                        waiting.clear()
                if n_valid < len(block) // size:
                    break
            return pages
    except FileNotFoundError:
        return set()


def _valid(
    frames: NDArray[np.uint8], salts: bytes, order: str, state: tuple[int, int]
) -> tuple[int, tuple[int, int]]:
    """How many of the frames continue the log, and the checksum after them."""
    covered = np.concatenate([frames[:, :8], frames[:, _FRAME_HEADER:]], axis=1)
    words = np.ascontiguousarray(covered).view(order).astype(np.uint32)
    stored = frames[:, 16:24].copy().view(">u4")
    after = _advance(state, words)
    for i in range(len(frames)):
        if frames[i, 8:16].tobytes() != salts or after[i] != tuple(stored[i].tolist()):
            return i, after[i - 1] if i else state
    return len(frames), after[-1] if len(frames) else state


def _advance(state: tuple[int, int], words: Words) -> list[tuple[int, int]]:
    """The checksum after each row of `words`, (n, 2 * pairs) uint32, beginning with `state`.

    SQLite goes through pairs x, y with a += x + b, then b += y + a, modulo 2**32. That is linear,
    so the part of a row is a sum with fixed factors, and rows are chained by a power of the step.
    """
    x, y = words[:, 0::2], words[:, 1::2]
    of_a, of_b, ((p, q), (r, s)) = _factors(x.shape[1])
    parts_a = (x * of_a[0] + y * of_a[1]).sum(axis=1, dtype=np.uint32).tolist()
    parts_b = (x * of_b[0] + y * of_b[1]).sum(axis=1, dtype=np.uint32).tolist()
    a, b = state
    found = []
    for part_a, part_b in zip(parts_a, parts_b, strict=True):
        a, b = (p * a + q * b + part_a) & 0xFFFFFFFF, (r * a + s * b + part_b) & 0xFFFFFFFF
        found.append((a, b))
    return found


@cache
def _factors(n_pairs: int) -> tuple[Words, Words, tuple[tuple[int, int], tuple[int, int]]]:
    """What x and y of pair i add to a (2, n) and to b (2, n) in the end; the step's n-th power."""
    of_a, of_b = np.empty((2, n_pairs), np.uint32), np.empty((2, n_pairs), np.uint32)
    p, q, r, s = 1, 0, 0, 1  # the power of the step [[1, 1], [1, 2]]
    for i in reversed(range(n_pairs)):
        # x goes into a and, through a, into b; y into b alone
        of_a[:, i], of_b[:, i] = ((p + q) & 0xFFFFFFFF, q), ((r + s) & 0xFFFFFFFF, s)
        p, q, r, s = p + q, p + 2 * q, r + s, r + 2 * s
        p, q, r, s = (v & 0xFFFFFFFF for v in (p, q, r, s))
    return of_a, of_b, ((p, q), (r, s))
