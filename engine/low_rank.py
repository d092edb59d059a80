"""An adapter as the layer loop reads it: packed for engine/kernels/low_rank.py."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.kernels import low_rank as kernels
from engine.kernels.layout import ROWS, blocks, groups

Floats = NDArray[np.float32]

# matrices that are multiplied with the same row write A x to places of their own
_PLACES = {"wk": 1, "wv": 2, "w_up": 1}
_N_PLACES = 3
_ALIGNMENT = 64
_LARGEST_F16 = 3e4


class _Pair(NamedTuple):
    """Where A and B of one matrix lie, in bytes of LowRank.data."""

    low: int
    high: int
    rank: int


class LowRank(NamedTuple):
    """Pairs of matrices, in the order in which the layer loop reads them.

    data    uint8: all As and Bs; must outlive the tables that point into it
    half    whether they are float16
    width   places for A x in a row of the loop's `shrunk`: three matrices of the highest rank
    digest  SHA-256 of all of it
    """

    data: NDArray[np.uint8]
    pairs: dict[str, _Pair]
    half: bool
    width: int
    digest: str

    def columns(self, name: str) -> list[int]:
        """SHRINK … SHRUNK of the matrix's row in engine/kernels/tables.py; zeros without a pair."""
        pair, base = self.pairs.get(name), self.data.ctypes.data
        if pair is None:
            return [0] * 6
        shrink = kernels.shrink_f16 if self.half else kernels.shrink_f32
        expand = kernels.expand_f16 if self.half else kernels.expand_f32
        place = _PLACES.get(name.rpartition(".")[2], 0) * self.width // _N_PLACES
        addresses = [shrink.address, expand.address, base + pair.low, base + pair.high]
        return [*addresses, pair.rank, place]


def pack_low_rank(
    matrices: Mapping[str, tuple[Floats, Floats]], scale: float, half: bool
) -> LowRank:
    """Pack A (rank, n_in) and B (n_out, rank) by the names of engine/weights.py.

    scale  of B
    half   in float16, unless a value would not fit
    """
    pairs: dict[str, _Pair] = {}
    parts: list[NDArray[np.uint8]] = []
    balanced = {name: _balanced(a, b * np.float32(scale)) for name, (a, b) in matrices.items()}
    largest = max((abs(m).max(initial=0) for pair in balanced.values() for m in pair), default=0)
    number = np.float16 if half and largest < _LARGEST_F16 else np.float32
    at = 0
    for name in sorted(balanced, key=_order):
        a, b = balanced[name]
        low, high = (_packed(m.astype(number)) for m in (_padded(a), _padded_rows(b)))
        pairs[name] = _Pair(at, at + low.size, a.shape[0])
        parts += [low, high]
        at += low.size + high.size
    data = _aligned(parts, at)
    digest = hashlib.sha256(repr((pairs, number.__name__)).encode())
    digest.update(data.data)
    highest = max((pair.rank for pair in pairs.values()), default=0)
    width = _N_PLACES * groups(highest) * ROWS
    return LowRank(data, pairs, number is np.float16, width, digest.hexdigest())


def _balanced(a: Floats, b: Floats) -> tuple[Floats, Floats]:
    """The same product, its components of like size in A and in B: powers of two change no digit,
    and float16 keeps all of them only from 6e-5 on."""
    sizes = [np.abs(a).max(axis=1, initial=0), np.abs(b).max(axis=0, initial=0)]
    with np.errstate(divide="ignore", invalid="ignore"):
        exponents = np.rint(np.log2(sizes[0] / sizes[1]) / 2)
    exponents = np.where(np.isfinite(exponents), exponents, 0).astype(np.int32)
    return np.ldexp(a, -exponents[:, None]), np.ldexp(b, exponents[None, :])


def _order(name: str) -> tuple[int, int]:
    """Of the layer loop."""
    _, layer, kind = name.split(".")
    return int(layer), ("wq", "wk", "wv", "wo", "w_gate", "w_up", "w_down").index(kind)


def _padded(a: Floats) -> Floats:
    """A to whole groups of ranks and whole blocks of columns."""
    rank, n_in = a.shape
    return np.pad(a, ((0, groups(rank) * ROWS - rank), (0, blocks(n_in) * 32 - n_in)))


def _padded_rows(b: Floats) -> Floats:
    """B to whole groups of outputs; its ranks stay as many as they are."""
    return np.pad(b, ((0, groups(len(b)) * ROWS - len(b)), (0, 0)))


def _packed(rows: NDArray[np.floating]) -> NDArray[np.uint8]:
    """(16 n, columns) -> bytes of [n][column][16 rows]; a multiple of 32."""
    columns = rows.reshape(-1, ROWS, rows.shape[1]).transpose(0, 2, 1)
    return np.ascontiguousarray(columns).reshape(-1).view(np.uint8)


def _aligned(parts: list[NDArray[np.uint8]], size: int) -> NDArray[np.uint8]:
    """One array that begins at a multiple of _ALIGNMENT."""
    room = np.zeros(size + _ALIGNMENT, np.uint8)
    start = -room.ctypes.data % _ALIGNMENT
    data = room[start : start + size]
    if parts:
        np.concatenate(parts, out=data)
    return data
