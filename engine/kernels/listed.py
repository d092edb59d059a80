"""Attention over some blocks of the cache: those in a list, as if they lay one after another.

A block is 16 slots, whose keys lie together (keys.py). Eight blocks of a list are worked on like a
segment (attention.py), with the same sums in the same order: a list of all blocks gives the bits of
attention that skips nothing.
"""

from __future__ import annotations

from typing import NamedTuple

from numba import types
from numba.extending import intrinsic

from engine.kernels import simd
from engine.kernels.address import caller
from engine.kernels.attention import SEGMENT, four, key_address, scale_address, value_address
from engine.kernels.compiler import kernel
from engine.kernels.keys import score_block, score_block_of_four
from engine.kernels.softmax import multiply, partial_bytes, scale_scores, weigh

BLOCK = 16  # slots
CHUNK = SEGMENT // BLOCK  # blocks of a list that give one partial result
_AHEAD = 4  # blocks between what is worked on and what is asked for


class Listed(NamedTuple):
    """One token's heads that share a kv head, and a part of its list; addresses unless said."""

    cache: int  # the kv head's first segment
    width: int  # numbers of a key
    queries: int  # float32 (heads, width)
    heads: int
    blocks: int  # int64 (n_blocks,): numbers of blocks, in the order of their slots
    n_blocks: int  # CHUNK at most
    n_ahead: int  # how many blocks of the list follow from `blocks` on
    n_slots: int  # of these blocks, in sight: the last block may be in the making
    scale: float
    softcap: float  # 0 = none
    scores: int  # scratch, float32 (heads, SEGMENT)


# attend(listed …, out): out (heads, partial_bytes(width)), overwritten
LISTED = types.void(*(types.int64,) * 8, *(types.float64,) * 2, *(types.int64,) * 2)


@intrinsic
def _call_listed(typing, address, cache, width, queries, heads, blocks, n_blocks, n_ahead, n_slots,
                 scale, softcap, scores, out):  # fmt: skip
    return caller(LISTED)


@kernel
def call_listed(address, listed, out):
    """LISTED by the kernel at an address."""
    _call_listed(address, listed.cache, listed.width, listed.queries, listed.heads, listed.blocks,
                 listed.n_blocks, listed.n_ahead, listed.n_slots, listed.scale, listed.softcap,
                 listed.scores, out)  # fmt: skip


@kernel
def _block(listed, j):
    """The first slot of the j-th block."""
    return BLOCK * simd.get_i64(listed.blocks + 8 * j)


@kernel
def _keys(layout, listed, j):
    return key_address(listed.cache, layout, listed.width, _block(listed, j))


@kernel
def _values(layout, listed, j):
    return value_address(listed.cache, layout, _block(listed, j))


@kernel
def _ahead(layout, listed, i):
    """Where the i-th run of a chunk's bytes begins: keys, then values, then the next keys."""
    n = listed.n_blocks
    if n <= i < 2 * n:
        return _values(layout, listed, i - n)
    return _keys(layout, listed, i if i < n else min(i - n, listed.n_ahead - 1))


@kernel
def _score(load, layout, listed):
    """Scores of all slots; meanwhile what comes next is asked for."""
    heads, q_row = listed.heads, 4 * listed.width
    for j in range(listed.n_blocks):
        keys, out = _keys(layout, listed, j), listed.scores + 4 * BLOCK * j
        ahead = _ahead(layout, listed, j + _AHEAD) - keys
        for r in range(0, heads, 4):
            if r + 1 == heads:
                score_block(load, layout.sixteen, listed.queries + q_row * r, keys, listed.width,
                            ahead, out + 4 * SEGMENT * r)  # fmt: skip
            else:
                queries = four(listed.queries, q_row, r, heads - 1)
                score_block_of_four(load, layout.sixteen, queries, keys, listed.width, ahead,
                                    four(out, 4 * SEGMENT, r, heads - 1))  # fmt: skip
            ahead = 0


@kernel
def _multiply_by_scales(layout, listed, scales, r):
    """Numbers of a row's slots times the scales of their keys or values."""
    for j in range(listed.n_blocks):
        factors = scale_address(listed.cache, layout, scales, _block(listed, j))
        multiply(listed.scores + 4 * (SEGMENT * r + BLOCK * j), factors, BLOCK)


@kernel
def _weigh_row(layout, listed, r, out):
    """A row's weights; its largest score and the weights' sum."""
    scores = listed.scores + 4 * SEGMENT * r
    if layout.key_scales != 0:
        _multiply_by_scales(layout, listed, layout.key_scales, r)
    scale_scores(scores, listed.n_slots, listed.scale, listed.softcap, 0, 0)
    largest, total = weigh(scores, 0, listed.n_slots, SEGMENT)
    simd.set_f32(out, largest)
    simd.set_f32(out + 4, total)
    if layout.value_scales != 0:
        _multiply_by_scales(layout, listed, layout.value_scales, r)


@kernel
def _add_values(load, layout, listed, r, out):
    """The values weighted for row r; meanwhile what comes next is asked for."""
    row, weights = layout.value_row, listed.scores + 4 * SEGMENT * r
    for i in range(0, listed.width, 32):
        a0 = a1 = simd.zero_f32()
        for j in range(listed.n_blocks):
            at = _values(layout, listed, j)
            ahead = _ahead(layout, listed, listed.n_blocks + j + _AHEAD) - at
            at += layout.sixteen * (i >> 4)
            first = 4 * BLOCK * j
            for k in range(first, min(first + 4 * BLOCK, 4 * listed.n_slots), 4):
                if i == 0 and r == 0:
                    for line in range(0, row, 64):
                        simd.prefetch(at + ahead + line)
                weight = simd.splat(simd.get_f32(weights + k))
                a0 = simd.fma(weight, load(at), a0)
                a1 = simd.fma(weight, load(at + layout.sixteen), a1)
                at += row
        _store_two(out + 4 * i, a0, a1)


@kernel
def _add_values_of_four(load, layout, listed, r, out):
    """_add_values for rows r … r + 3 through one read of the values; out: of row 0."""
    row, sixteen = layout.value_row, layout.sixteen
    w0, w1, w2, w3 = four(listed.scores, 4 * SEGMENT, r, listed.heads - 1)
    o0, o1, o2, o3 = four(out, partial_bytes(listed.width), r, listed.heads - 1)
    for i in range(0, listed.width, 32):
        a0 = a1 = b0 = b1 = c0 = c1 = d0 = d1 = simd.zero_f32()
        for j in range(listed.n_blocks):
            at = _values(layout, listed, j)
            ahead = _ahead(layout, listed, listed.n_blocks + j + _AHEAD) - at
            at += sixteen * (i >> 4)
            first = 4 * BLOCK * j
            for k in range(first, min(first + 4 * BLOCK, 4 * listed.n_slots), 4):
                if i == 0 and r == 0:
                    for line in range(0, row, 64):
                        simd.prefetch(at + ahead + line)
                v0, v1 = load(at), load(at + sixteen)
                weight = simd.splat(simd.get_f32(w0 + k))
                a0, a1 = simd.fma(weight, v0, a0), simd.fma(weight, v1, a1)
                weight = simd.splat(simd.get_f32(w1 + k))
                b0, b1 = simd.fma(weight, v0, b0), simd.fma(weight, v1, b1)
                weight = simd.splat(simd.get_f32(w2 + k))
                c0, c1 = simd.fma(weight, v0, c0), simd.fma(weight, v1, c1)
                weight = simd.splat(simd.get_f32(w3 + k))
                d0, d1 = simd.fma(weight, v0, d0), simd.fma(weight, v1, d1)
                at += row
        _store_two(o0 + 4 * i, a0, a1)
        _store_two(o1 + 4 * i, b0, b1)
        _store_two(o2 + 4 * i, c0, c1)
        _store_two(o3 + 4 * i, d0, d1)


@kernel
def _store_two(at, low, high):
    simd.store_f32(at, low)
    simd.store_f32(at + 64, high)


@kernel
def attend_listed(load, layout, listed, out):
    """LISTED in a format: `load` widens 16 of its numbers."""
    size = partial_bytes(listed.width)
    _score(load, layout, listed)
    for r in range(listed.heads):
        _weigh_row(layout, listed, r, out + size * r + 4 * listed.width)
    for r in range(0, listed.heads, 4):
        if r + 1 == listed.heads:
            _add_values(load, layout, listed, r, out + size * r)
        else:
            _add_values_of_four(load, layout, listed, r, out)
