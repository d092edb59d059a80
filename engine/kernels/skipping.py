"""Attention of few tokens that reads only the blocks of the cache that can matter most.

Each token and kv head has a list of its own: the first block, which every head looks at when it
looks at nothing (Xiao et al. 2023, arXiv:2309.17453), the last ones, and of those between the ones
whose ranges (ranges.py) rate highest. Heads that share keys share the list: a block counts as it
does for the head whose best block it is nearest to.

Every thread makes all lists, alike, and then works on its part of what is in them, so that a list
costs no meeting of threads and those stay equally busy whatever the lists hold.
"""

from __future__ import annotations

import numpy as np
from numba import types

from engine.kernels import simd, vectors
from engine.kernels.compiler import kernel
from engine.kernels.head import LOWEST
from engine.kernels.heads import head_of, partial_of, query_of
from engine.kernels.listed import BLOCK, CHUNK, Listed, call_listed
from engine.kernels.ranges import GROUP, rate_group
from engine.kernels.tables import row_of
from engine.kernels.vectors import I32x16

F = np.float32
FIRST = 1  # blocks that are always read
RECENT = 4  # the last ones, the one in the making included; 2 are written to by FEW tokens
_AHEAD = 8192  # bytes
_INFINITY = 0x7F800000  # the bits of it


@vectors.operation(I32x16, types.int64, types.int32)
def _at_most(builder, address, limit):
    """1 for each of 16 int32 that is at most `limit`, else 0."""
    numbers = vectors.load(builder, address, I32x16.llvm)
    limits = vectors.broadcast(builder, I32x16.llvm, limit)
    return builder.zext(builder.icmp_signed("<=", numbers, limits), I32x16.llvm)


@kernel
def skips(batch, layer):
    """Whether a layer reads only listed blocks; one with a window reads few anyway."""
    last = batch.visible.size - 1
    few = batch.n_listed == 0 or batch.visible[last] < batch.listed_from
    return not few and batch.windows[layer] > batch.positions[last]


@kernel
def _n_blocks(batch, t):
    """How many blocks token t sees, the last one in part."""
    return (batch.visible[t] + BLOCK - 1) // BLOCK


@kernel
def rate_blocks(plan, buffers, batch, layer, thread, n_threads):
    """ratings: how each head of each token rates each block but the RECENT ones."""
    per_kv, n_kv, tokens = plan.n_heads // plan.n_kv_heads, plan.n_kv_heads, batch.token_ids.size
    n_groups = max(0, _n_blocks(batch, tokens - 1) - RECENT + GROUP - 1) // GROUP
    n = n_kv * n_groups
    for job in range(n * thread // n_threads, n * (thread + 1) // n_threads):
        kv, group = job // n_groups, job % n_groups
        ranges = simd.address_of(batch.ranges) + batch.ranges.strides[0] * layer
        ranges += batch.ranges.strides[1] * kv + batch.ranges.strides[2] * group
        ahead = _AHEAD if group + 1 < n_groups else 0
        for t in range(tokens):
            end = _n_blocks(batch, t) - RECENT
            for head in range(kv * per_kv, (kv + 1) * per_kv):
                out = _ratings(buffers, plan, t, head) + 4 * GROUP * group
                query = query_of(plan, buffers, tokens, t, head)
                rate_group(query, ranges, plan.width, ahead, out)
                for block in range(max(end, GROUP * group), GROUP * group + GROUP):
                    simd.set_f32(out + 4 * (block - GROUP * group), LOWEST)
                ahead = 0


@kernel
def _ratings(buffers, plan, t, head):
    """Address of a head's ratings for token t."""
    return row_of(buffers.ratings, t * plan.n_heads + head)


@kernel
def _measure(ratings, stride, heads, n, out):
    """out[block] = how far below a head's best it is rated, for the head where that is least.

    ratings  float32 (heads, n), n a multiple of 16, rows `stride` bytes apart; out float32 (n,)
    """
    for h in range(heads):
        row = ratings + stride * h
        best = simd.splat(LOWEST)
        for i in range(0, 4 * n, 64):
            best = simd.maximum(best, simd.load_f32(row + i))
        best = simd.splat(simd.max_lanes(best))
        for i in range(0, 4 * n, 64):
            below = simd.sub(best, simd.load_f32(row + i))
            if h:
                below = simd.minimum(below, simd.load_f32(out + i))
            simd.store_f32(out + i, below)
    for block in range(FIRST):
        simd.set_f32(out + 4 * block, F(0))


@kernel
def kth_least(values, n, k):
    """Bits of a float32 that exactly k of n are at most, or, where equals forbid that, just more.

    values  float32 (n,), none negative, n a multiple of 16 and at least k
    """
    low, high = -1, _INFINITY  # the bits of such numbers are in their order
    while high - low > 1:
        middle = (low + high) // 2
        found = simd.zero_i32()
        for i in range(0, 4 * n, 64):
            found = simd.add_i32(found, _at_most(values + i, np.int32(middle)))
        count = simd.sum_lanes_i32(found)
        if count == k:
            return middle
        if count > k:
            high = middle
        else:
            low = middle
    return high


@kernel
def _list_blocks(plan, buffers, batch, thread, t, kv):
    """The blocks that token t reads of a kv head, into this thread's own list."""
    row, total = t * plan.n_kv_heads + kv, _n_blocks(batch, t)
    blocks, n, old = buffers.lists[thread, row], 0, 0
    if batch.n_listed < total and batch.visible[t] >= batch.listed_from:
        old, per_kv = total - RECENT, plan.n_heads // plan.n_kv_heads
        distances = row_of(buffers.distances, thread)
        padded = (old + GROUP - 1) // GROUP * GROUP
        _measure(_ratings(buffers, plan, t, kv * per_kv), buffers.ratings.strides[0], per_kv,
                 padded, distances)  # fmt: skip
        limit = kth_least(distances, padded, batch.n_listed - RECENT)
        for block in range(old):
            blocks[n] = block
            n += simd.get_i32(distances + 4 * block) <= limit
    for block in range(old, total):
        blocks[n] = block
        n += 1
    buffers.n_listed[thread, row] = n


@kernel
def attend_listed_heads(plan, buffers, batch, cache, layer, thread, n_threads):
    """Partial results of all tokens (see merge_heads); a job is a kv head's CHUNK of blocks."""
    n_kv, tokens = plan.n_kv_heads, batch.token_ids.size
    total = 0
    for row in range(tokens * n_kv):
        _list_blocks(plan, buffers, batch, thread, row // n_kv, row % n_kv)
        total += (buffers.n_listed[thread, row] + CHUNK - 1) // CHUNK
    first, last = total * thread // n_threads, total * (thread + 1) // n_threads
    before = 0
    for row in range(tokens * n_kv):
        n_chunks = (buffers.n_listed[thread, row] + CHUNK - 1) // CHUNK
        for chunk in range(max(first - before, 0), min(last - before, n_chunks)):
            t, kv = row // n_kv, row % n_kv
            listed = _listed(plan, buffers, batch, cache, layer, thread, row, chunk)
            out = partial_of(plan, buffers, batch, chunk, kv, t)
            call_listed(plan.attend_listed, listed, out)
        before += n_chunks


@kernel
def _listed(plan, buffers, batch, cache, layer, thread, row, chunk):
    """A job of attend_listed_heads."""
    per_kv, tokens = plan.n_heads // plan.n_kv_heads, batch.token_ids.size
    t, kv, begin = row // plan.n_kv_heads, row % plan.n_kv_heads, chunk * CHUNK
    blocks, n_ahead = buffers.lists[thread, row], buffers.n_listed[thread, row] - begin
    n_blocks = min(CHUNK, n_ahead)
    n_slots = BLOCK * n_blocks
    if n_blocks == n_ahead:
        n_slots -= BLOCK * _n_blocks(batch, t) - batch.visible[t]
    return Listed(
        head_of(cache, layer, kv),
        plan.width,
        query_of(plan, buffers, tokens, t, kv * per_kv),
        per_kv,
        simd.address_of(blocks) + 8 * begin,
        n_blocks,
        n_ahead,
        n_slots,
        plan.attention_scale,
        plan.attention_softcap,
        row_of(buffers.scores[thread], 0),
    )
