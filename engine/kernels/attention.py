"""Attention over the cache, a segment of 128 positions at a time.

A row is a (token, head) pair; the rows of a job share the keys and values of one kv head. Each
segment gives each row a partial result, a running softmax (Milakov and Gimelshein 2018,
arXiv:1805.02867); they are merged in the order of the segments, whoever computed them.

A token sees a run of slots [0, visible), where a slot is a position, and, in a search with several
beams, a path of further slots at positions visible, visible + 1 … Sums follow positions: a path
counts like a run, and a token in a batch like one alone, to the bit.

A segment of a kv head is one run of bytes: keys (see keys.py), values (values.py) and, in a format
with scales, 128 float32 scales of keys and 128 of values. width is head_dim rounded up to 32, the
rest zeros.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import types
from numba.extending import intrinsic

from engine.kernels import simd
from engine.kernels.address import caller
from engine.kernels.compiler import kernel
from engine.kernels.keys import score, score_block, score_block_of_four
from engine.kernels.softmax import MASKED, multiply, partial_bytes, scale_scores, weigh
from engine.kernels.values import add_value, add_values, add_values_of_four

F = np.float32
SEGMENT = 128  # positions whose keys and values stay in the first cache while all rows use them


class View(NamedTuple):
    """The rows of a job and what they see; addresses unless said."""

    cache: int  # the kv head's first segment
    width: int  # numbers of a key
    queries: int  # float32 (tokens, heads, width)
    tokens: int
    heads: int
    positions: int  # int64 (tokens,): of the tokens
    visible: int  # int64 (tokens,): how many slots of the run each sees, never fewer than the last
    path: int  # int64 (tokens, n_path) slots
    n_path: int
    window: int  # how many positions back a token sees, its own included
    slopes: int  # float32 (heads,) of ALiBi, or 0
    scale: float
    softcap: float  # 0 = none
    scores: int  # scratch, float32 (tokens * heads, SEGMENT)


# attend(view …, segment, ahead, out): the partial results of all rows in one segment
#   ahead   how far to ask for memory in advance, in bytes; 0 where nothing follows
#   out     (tokens * heads, partial_bytes(width)), overwritten
ATTEND = types.void(*(types.int64,) * 11, *(types.float64,) * 2, *(types.int64,) * 4)

# store(vector, cache, width, slot, head_dim): float32 (head_dim,) into a slot of a kv head
STORE = types.void(*(types.int64,) * 5)


@intrinsic
def _call_attend(typing, address, cache, width, queries, tokens, heads, positions, visible, path,
                 n_path, window, slopes, scale, softcap, scores, segment, ahead, out):  # fmt: skip
    return caller(ATTEND)


@kernel
def call_attend(address, view, segment, ahead, out):
    """ATTEND by the kernel at an address: the layer loop knows no format of the cache."""
    _call_attend(address, view.cache, view.width, view.queries, view.tokens, view.heads,
                 view.positions, view.visible, view.path, view.n_path, view.window, view.slopes,
                 view.scale, view.softcap, view.scores, segment, ahead, out)  # fmt: skip


@intrinsic
def call_store(typing, address, vector, cache, width, slot, head_dim):
    """STORE by the kernel at an address."""
    return caller(STORE)


class Layout(NamedTuple):
    """A segment, in bytes."""

    sixteen: int  # size of 16 numbers
    value_row: int  # size of a value
    values: int  # where the values begin
    key_scales: int  # where the scales begin, 0 = none
    value_scales: int
    size: int


@kernel
def segment_layout(width, number_bytes, scaled):
    """Of numbers of number_bytes, with (1) or without (0) scales."""
    values = SEGMENT * width * number_bytes
    end, scales = 2 * values, 4 * SEGMENT * scaled
    return Layout(16 * number_bytes, width * number_bytes, values, end * scaled,
                  (end + scales) * scaled, end + 2 * scales)  # fmt: skip


@kernel
def key_address(cache, layout, width, slot):
    """The first number of a slot's key; its next one lies layout.sixteen further."""
    at = cache + (slot // SEGMENT) * layout.size + (slot & 15) * (layout.sixteen >> 4)
    return at + (slot % SEGMENT >> 4) * width * layout.sixteen


@kernel
def value_address(cache, layout, slot):
    """The first number of a slot's value."""
    return cache + slot // SEGMENT * layout.size + layout.values + slot % SEGMENT * layout.value_row


@kernel
def scale_address(cache, layout, scales, slot):
    """Of layout.key_scales or layout.value_scales."""
    return cache + slot // SEGMENT * layout.size + scales + slot % SEGMENT * 4


@kernel
def _visible(view, r):
    """How many slots of the run row r sees; a row beyond the last one counts as the last."""
    t = min(r // view.heads, view.tokens - 1)
    return simd.get_i64(view.visible + 8 * t)


@kernel
def four(base, stride, r, last):
    """Addresses of rows r … r + 3; beyond the last one, of the last."""
    return (
        base + stride * r,
        base + stride * min(r + 1, last),
        base + stride * min(r + 2, last),
        base + stride * min(r + 3, last),
    )


@kernel
def _score_run(load, view, layout, segment, ahead):
    """Scores of a segment's slots in the run, for all rows that see any of 16."""
    rows, q_row, begin = view.tokens * view.heads, 4 * view.width, segment * SEGMENT
    block = view.cache + segment * layout.size
    t = 0
    for slot in range(begin, min(begin + SEGMENT, _visible(view, rows)), 16):
        while simd.get_i64(view.visible + 8 * t) <= slot:
            t += 1  # in a run of tokens the first ones see less
        out = view.scores + 4 * (slot - begin)
        r, here = t * view.heads, ahead
        while r < rows:
            if r + 1 == rows:
                score_block(load, layout.sixteen, view.queries + q_row * r, block, view.width,
                            here, out + 4 * SEGMENT * r)  # fmt: skip
            else:
                queries = four(view.queries, q_row, r, rows - 1)
                score_block_of_four(load, layout.sixteen, queries, block, view.width,
                                    here, four(out, 4 * SEGMENT, r, rows - 1))  # fmt: skip
            r, here = r + 4, 0  # who reads a block first asks for what comes next
        block += view.width * layout.sixteen


@kernel
def _path_slot(view, r, position):
    """The slot of the key that row r's path has at a position."""
    index = r // view.heads * view.n_path + position - _visible(view, r)
    return simd.get_i64(view.path + 8 * index)


@kernel
def _weigh_row(get, view, layout, segment, r, n_run, n, out):
    """The weights of a row's first n keys in a segment, of which n_run are slots of the run."""
    begin, scores = segment * SEGMENT, view.scores + 4 * SEGMENT * r
    if layout.key_scales != 0:
        multiply(scores, scale_address(view.cache, layout, layout.key_scales, begin), n_run)
    for j in range(n_run, n):
        slot = _path_slot(view, r, begin + j)
        key = key_address(view.cache, layout, view.width, slot)
        value = score(get, layout.sixteen, view.queries + 4 * view.width * r, key, view.width)
        if layout.key_scales != 0:
            value *= simd.get_f32(scale_address(view.cache, layout, layout.key_scales, slot))
        simd.set_f32(scores + 4 * j, value)
    position = simd.get_i64(view.positions + 8 * (r // view.heads))
    slope = F(0)
    if view.slopes != 0:
        slope = simd.get_f32(view.slopes + 4 * (r % view.heads))
    scale_scores(scores, n, view.scale, view.softcap, slope, begin - position)
    first = min(max(position + 1 - view.window - begin, 0), n)
    largest, total = weigh(scores, first, n, SEGMENT)
    if first == n:
        largest, total = MASKED, F(0)  # nothing in sight
    simd.set_f32(out, largest)
    simd.set_f32(out + 4, total)
    if layout.value_scales != 0:
        multiply(scores, scale_address(view.cache, layout, layout.value_scales, begin), n_run)
        for j in range(n_run, n):
            slot = _path_slot(view, r, begin + j)
            factor = simd.get_f32(scale_address(view.cache, layout, layout.value_scales, slot))
            simd.set_f32(scores + 4 * j, simd.get_f32(scores + 4 * j) * factor)


@kernel
def _in_sight(view, r, begin):
    """How many of a segment's keys row r sees before its own position: (of the run, in all)."""
    run = _visible(view, r) - begin
    n = min(max(run + view.n_path, 0), SEGMENT)
    return min(max(run, 0), n), n


@kernel
def attend_segment(load, get, layout, view, segment, ahead, out):
    """ATTEND in a format: `load` widens 16 of its numbers, `get` one."""
    rows, begin, size = view.tokens * view.heads, segment * SEGMENT, partial_bytes(view.width)
    _score_run(load, view, layout, segment, ahead)
    for r in range(rows):
        n_run, n = _in_sight(view, r, begin)
        _weigh_row(get, view, layout, segment, r, n_run, n, out + size * r + 4 * view.width)
    values = view.cache + segment * layout.size + layout.values
    for r in range(0, rows, 4):
        n_run, _ = _in_sight(view, r + 3, begin)
        if r + 1 == rows:
            add_values(load, layout.sixteen, view.scores + 4 * SEGMENT * r, values, n_run,
                       view.width, out + size * r)  # fmt: skip
        else:
            weights = four(view.scores, 4 * SEGMENT, r, rows - 1)
            add_values_of_four(load, layout.sixteen, weights, values, n_run, view.width,
                               ahead if r == 0 else 0, four(out, size, r, rows - 1))  # fmt: skip
    if view.n_path:
        for r in range(rows):
            n_run, n = _in_sight(view, r, begin)
            for j in range(n_run, n):
                value = value_address(view.cache, layout, _path_slot(view, r, begin + j))
                weight = simd.get_f32(view.scores + 4 * (SEGMENT * r + j))
                add_value(load, layout.sixteen, weight, value, view.width, out + size * r)
