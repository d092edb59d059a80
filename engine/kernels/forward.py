"""The layer loop: one call runs a batch of tokens through all layers, on all threads together.

Every thread runs `forward` and takes its share of each step; a barrier ends a step. Letters: `T`
tokens of the batch. All rows are float32 and padded with zeros to 32 columns.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.kernels import simd, sync
from engine.kernels.activations import (
    BLOCK_BYTES,
    add_rows,
    feed_forward_gate,
    layer_norm,
    quantize,
    rms_norm,
)
from engine.kernels.attention import View, attend, copy_head, normalise_head, rotate, store_key
from engine.kernels.compiler import entry, kernel
from engine.kernels.matmul import call_matmul, call_row

# columns of `matrices`: addresses of the format's kernels and of the packed data, sizes in blocks
MATMUL, ROW, DATA, GROUPS, BLOCKS, INT8, N_COLUMNS = range(7)
# rows of `matrices`: three of the model, then seven a layer (0 in DATA: absent)
EMBEDDING, POSITION, HEAD, FIRST_LAYER = range(4)
WQ, WK, WV, WO, W_GATE, W_UP, W_DOWN, N_MATRICES = range(8)
# columns of `vectors`, a row a layer and one more for the end: addresses, 0 = absent
(NORM, NORM_BIAS, FFN_NORM, FFN_NORM_BIAS, Q_NORM, K_NORM,
 BQ, BK, BV, BO, B_GATE, B_UP, B_DOWN, SLOPES, N_VECTORS) = range(15)  # fmt: skip

F = np.float32


class Plan(NamedTuple):
    """What the layer loop needs to know of the decoder; flags are 0 or 1."""

    n_layers: int
    hidden_size: int
    intermediate_size: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    width: int  # head_dim rounded up to 16: a row of the cache
    rotary_dim: int  # 0 = no rotation
    interleaved: int
    layernorm: int
    parallel: int
    activation: int
    gated: int
    any_int8: int
    norm_eps: float
    attention_scale: float
    clip_qkv: float
    embedding_scale: float


class Buffers(NamedTuple):
    """Scratch for up to T tokens and the threads; float32 unless said."""

    x: NDArray[np.float32]  # (T, hidden) the residual stream
    normed: NDArray[np.float32]  # (T, hidden)
    blocks: NDArray[np.uint8]  # (T, widest row in int8 blocks)
    q: NDArray[np.float32]  # (T, heads): as projected
    k: NDArray[np.float32]  # (T, kv heads)
    v: NDArray[np.float32]
    queries: NDArray[np.float32]  # (T, n_heads, width): rotated
    attended: NDArray[np.float32]  # (T, heads)
    out: NDArray[np.float32]  # (T, hidden): what a branch adds to x
    gate: NDArray[np.float32]  # (T, intermediate)
    up: NDArray[np.float32]  # (T, intermediate)
    scores: NDArray[np.float32]  # (threads, heads that share keys + 1, slots)
    cells: NDArray[np.int64]  # barrier
    stops: NDArray[np.int64]  # (n_layers,): whether the call was cancelled, as thread 0 saw it


class Batch(NamedTuple):
    """T tokens and where they stand. int64 unless said."""

    token_ids: NDArray[np.int64]  # (T,)
    positions: NDArray[np.int64]  # (T,)
    slots: NDArray[np.int64]  # (T,): the cache rows that they are written to
    visible: NDArray[np.int64]  # (T,): they see slots [0, visible), and then their path
    path: NDArray[np.int64]  # (T, P) further slots, at positions visible, visible + 1 …
    windows: NDArray[np.int64]  # (n_layers,): how many positions back a layer sees
    cos: NDArray[np.float32]  # (T, rotary_dim / 2)
    sin: NDArray[np.float32]


@entry
def forward(
    thread, n_threads, plan, matrices, vectors, buffers, batch, keys, values, logits, cancel
):
    """Run the batch; fill the cache, and logits with the scores after its last tokens.

    matrices   int64 (FIRST_LAYER + N_MATRICES n_layers, N_COLUMNS)
    vectors    int64 (n_layers + 1, N_VECTORS); the last row holds the final norm
    keys       float32 (n_layers, n_kv_heads, slots / 16, width, 16)
    values     float32 (n_layers, n_kv_heads, slots, width)
    logits     float32 (n, padded vocabulary): rows for the last n tokens of the batch, overwritten
    cancel     int64 (1,): when not 0, the call ends before the next layer
    Returns 1 when cancelled (cache rows of the batch are then undefined), else 0.
    """
    cells = simd.address_of(buffers.cells)
    tokens = batch.token_ids.size
    first, last = tokens * thread // n_threads, tokens * (thread + 1) // n_threads
    _embed(plan, matrices, batch, buffers, first, last)
    for layer in range(plan.n_layers):
        m = matrices[FIRST_LAYER + N_MATRICES * layer :]
        v = vectors[layer]
        if thread == 0:
            buffers.stops[layer] = sync.load(simd.address_of(cancel))
        _normalise(plan, v[NORM], v[NORM_BIAS], buffers, first, last)
        sync.barrier(cells, n_threads)
        if buffers.stops[layer]:
            # nobody may leave, and begin another call, before all have read this
            sync.barrier(cells, n_threads)
            return 1
        _project(m[WQ], buffers.normed, buffers.blocks, buffers.q, thread, n_threads)
        _project(m[WK], buffers.normed, buffers.blocks, buffers.k, thread, n_threads)
        _project(m[WV], buffers.normed, buffers.blocks, buffers.v, thread, n_threads)
        sync.barrier(cells, n_threads)
        _place_heads(plan, v, buffers, batch, keys[layer], values[layer], thread, n_threads)
        sync.barrier(cells, n_threads)
        _attend_heads(plan, v, buffers, batch, batch.windows[layer], keys[layer], values[layer],
                      thread, n_threads)  # fmt: skip
        sync.barrier(cells, n_threads)
        _requantize(plan, buffers.attended, buffers.blocks, first, last)
        sync.barrier(cells, n_threads)
        _project(m[WO], buffers.attended, buffers.blocks, buffers.out, thread, n_threads)
        sync.barrier(cells, n_threads)
        if not plan.parallel:
            _add(buffers, v[BO], first, last)
        _normalise(plan, v[FFN_NORM], v[FFN_NORM_BIAS], buffers, first, last)
        if plan.parallel:
            _add(buffers, v[BO], first, last)
        sync.barrier(cells, n_threads)
        _feed_forward(plan, m, v, buffers, tokens, thread, n_threads, cells)
        _project(m[W_DOWN], buffers.gate, buffers.blocks, buffers.out, thread, n_threads)
        sync.barrier(cells, n_threads)
        _add(buffers, v[B_DOWN], first, last)
    rows = logits.shape[0]
    v = vectors[plan.n_layers]
    _normalise(plan, v[NORM], v[NORM_BIAS], buffers, max(first, tokens - rows), last)
    sync.barrier(cells, n_threads)
    if rows:
        _project(matrices[HEAD], buffers.normed[tokens - rows :], buffers.blocks[tokens - rows :],
                 logits, thread, n_threads)  # fmt: skip
    sync.barrier(cells, n_threads)
    return 0


@kernel
def _row(array, index):
    """Address of row `index` of a 2-D array."""
    return simd.address_of(array) + array.strides[0] * index


@kernel
def _embed(plan, matrices, batch, buffers, first, last):
    """x = the tokens' embeddings (+ those of their positions)."""
    n_padded = buffers.x.shape[1]
    for t in range(first, last):
        x = _row(buffers.x, t)
        m = matrices[EMBEDDING]
        call_row(m[ROW], m[DATA], m[BLOCKS], batch.token_ids[t], x)
        if plan.embedding_scale != 1:
            scale = simd.splat(F(plan.embedding_scale))
            for i in range(0, 4 * n_padded, 64):
                simd.store_f32(x + i, simd.mul(simd.load_f32(x + i), scale))
        m = matrices[POSITION]
        if m[DATA] != 0:
            out = _row(buffers.out, t)
            call_row(m[ROW], m[DATA], m[BLOCKS], batch.positions[t], out)
            add_rows(x, out, 0, n_padded)


@kernel
def _project(matrix, rows, blocks, out, thread, n_threads):
    """out = rows times the matrix; this thread's share of the output columns."""
    groups = matrix[GROUPS]
    first, last = groups * thread // n_threads, groups * (thread + 1) // n_threads
    if matrix[INT8]:
        x, stride = simd.address_of(blocks), blocks.strides[0]
    else:
        x, stride = simd.address_of(rows), rows.strides[0]
    call_matmul(matrix[MATMUL], matrix[DATA], first, last, matrix[BLOCKS], x, stride,
                min(rows.shape[0], out.shape[0]), simd.address_of(out), out.strides[0])  # fmt: skip


@kernel
def _requantize(plan, rows, blocks, first, last):
    """blocks = rows in int8, where any matrix takes them."""
    if plan.any_int8:
        for t in range(first, last):
            quantize(_row(rows, t), rows.shape[1] // 32, _row(blocks, t))


@kernel
def _normalise(plan, weight, bias, buffers, first, last):
    """normed = norm(x), and its int8 blocks."""
    n_padded = buffers.x.shape[1]
    for t in range(first, last):
        x, out = _row(buffers.x, t), _row(buffers.normed, t)
        if plan.layernorm:
            layer_norm(x, weight, bias, plan.norm_eps, plan.hidden_size, n_padded, out)
        else:
            rms_norm(x, weight, plan.norm_eps, plan.hidden_size, n_padded, out)
    _requantize(plan, buffers.normed, buffers.blocks, first, last)


@kernel
def _add(buffers, bias, first, last):
    """x += out (+ bias)."""
    for t in range(first, last):
        add_rows(_row(buffers.x, t), _row(buffers.out, t), bias, buffers.x.shape[1])


@kernel
def _place_heads(plan, vector, buffers, batch, keys, values, thread, n_threads):
    """Bias, norm and rotation of each head; queries to scratch, keys and values to the cache."""
    n_dim, n_q, n_kv = plan.head_dim, plan.n_heads, plan.n_kv_heads
    a_token = n_q + 2 * n_kv
    n = a_token * batch.token_ids.size
    for job in range(n * thread // n_threads, n * (thread + 1) // n_threads):
        t, head = job // a_token, job % a_token
        which = 0 if head < n_q else (1 if head < n_q + n_kv else 2)
        if which == 0:
            source, out = _row(buffers.q, t), _row(buffers.queries[t], head)
        elif which == 1:
            head -= n_q
            source = _row(buffers.k, t)
            out = source + 4 * n_dim * head  # finished in place, then scattered
        else:
            head -= n_q + n_kv
            source, out = _row(buffers.v, t), _row(values[head], batch.slots[t])
        offset = 4 * n_dim * head
        bias = vector[BQ + which]
        if bias != 0:
            bias += offset
        copy_head(source + offset, bias, plan.clip_qkv, n_dim, out)
        if which < 2:
            if vector[Q_NORM + which] != 0:
                normalise_head(out, vector[Q_NORM + which], plan.norm_eps, n_dim)
            if plan.rotary_dim:
                rotate(out, _row(batch.cos, t), _row(batch.sin, t), plan.rotary_dim,
                       plan.interleaved)  # fmt: skip
        if which == 1:
            store_key(out, simd.address_of(keys[head]), batch.slots[t], n_dim, plan.width)


@kernel
def _attend_heads(plan, vector, buffers, batch, window, keys, values, thread, n_threads):
    """attended = attention of each head; heads of a token that share keys go together."""
    n_dim, per_kv = plan.head_dim, plan.n_heads // plan.n_kv_heads
    n = plan.n_heads * batch.token_ids.size
    scores, scores_row = _row(buffers.scores[thread], 0), buffers.scores.strides[1]
    job, last = n * thread // n_threads, n * (thread + 1) // n_threads
    while job < last:
        t, head = job // plan.n_heads, job % plan.n_heads
        kv = head // per_kv
        n_heads = min(last - job, (kv + 1) * per_kv - head)
        position, stop = batch.positions[t], batch.visible[t]
        oldest = max(0, position + 1 - window)
        skipped = max(0, oldest - stop)  # of the path
        view = View(
            simd.address_of(keys[kv]), simd.address_of(values[kv]), plan.width,
            min(oldest, stop), stop,
            _row(batch.path, t) + 8 * skipped, batch.path.shape[1] - skipped,
            position - skipped, plan.attention_scale,
        )  # fmt: skip
        slopes = vector[SLOPES]
        if slopes != 0:
            slopes += 4 * head
        # the last row of a thread's scores takes the heads' results
        out = _row(buffers.scores[thread], per_kv)
        attend(_row(buffers.queries[t], head), n_heads, view, slopes, scores, scores_row, out)
        for i in range(n_heads):
            to = _row(buffers.attended, t) + 4 * n_dim * (head + i)
            copy_head(out + 4 * plan.width * i, 0, 0.0, n_dim, to)
        job += n_heads


@kernel
def _feed_forward(plan, matrices, vector, buffers, tokens, thread, n_threads, cells):
    """gate = activation(gate) * up, ready for the product with w_down."""
    if plan.gated:
        _project(matrices[W_GATE], buffers.normed, buffers.blocks, buffers.gate, thread, n_threads)
        _project(matrices[W_UP], buffers.normed, buffers.blocks, buffers.up, thread, n_threads)
    else:
        _project(matrices[W_UP], buffers.normed, buffers.blocks, buffers.gate, thread, n_threads)
    sync.barrier(cells, n_threads)
    n_blocks = buffers.gate.shape[1] // 32
    n = tokens * n_blocks
    for job in range(n * thread // n_threads, n * (thread + 1) // n_threads):
        t, b = job // n_blocks, job % n_blocks
        up = _row(buffers.up, t) if plan.gated else 0
        gate_bias = vector[B_GATE] if plan.gated else vector[B_UP]
        gate = _row(buffers.gate, t)
        feed_forward_gate(gate, up, gate_bias, vector[B_UP], plan.activation, 32 * b, 32 * b + 32)
        if plan.any_int8:
            quantize(gate + 128 * b, 1, _row(buffers.blocks, t) + BLOCK_BYTES * b)
    sync.barrier(cells, n_threads)
