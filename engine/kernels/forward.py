"""The layer loop: one call runs a batch of tokens through all layers, on all threads together.

Every thread runs `forward` and takes its share of each step; a barrier ends a step.
"""

from __future__ import annotations

import numpy as np

from engine.kernels import calls, simd, sync
from engine.kernels.activations import (
    BLOCK_BYTES,
    add_rows,
    feed_forward_gate,
    layer_norm,
    quantize,
    rms_norm,
)
from engine.kernels.compiler import entry, kernel
from engine.kernels.head import screened_head
from engine.kernels.heads import attend_heads, merge_heads, normalise_rows, place_heads
from engine.kernels.low_rank import add_low_rank
from engine.kernels.matmul import call_row
from engine.kernels.projection import project
from engine.kernels.skipping import attend_listed_heads, rate_blocks, skips
from engine.kernels.sparse import BY_ROWS, prepare_rows, probe_gate, sparse_feed_forward
from engine.kernels.sparse_projection import list_inputs, probe_inputs, project_inputs
from engine.kernels.tables import (
    B_DOWN,
    B_GATE,
    B_UP,
    BLOCKS,
    BO,
    BOUNDS,
    DATA,
    EMBEDDING,
    FEW,
    FFN_NORM,
    FFN_NORM_BIAS,
    FFN_POST_NORM,
    FIRST_LAYER,
    HEAD,
    N_MATRICES,
    NORM,
    NORM_BIAS,
    O_SITE,
    POSITION,
    POST_NORM,
    QKV_SITE,
    ROW,
    W_DOWN,
    W_GATE,
    W_UP,
    WK,
    WK_INPUTS,
    WO,
    WO_INPUTS,
    WQ,
    WQ_INPUTS,
    WV,
    WV_INPUTS,
    row_of,
)  # fmt: skip

F = np.float32


@entry
def forward(cells, n_threads, plan, matrices, vectors, buffers, batch, cache, logits, cancel):
    """Run the batch; fill the cache, and logits with the scores after its last tokens.

    cells      of a team (engine/threads.py), n_threads of which share the work
    matrices   int64 (FIRST_LAYER + N_MATRICES n_layers, N_COLUMNS)
    vectors    int64 (n_layers + 1, N_VECTORS); the last row holds the final norm
    cache      uint8 (n_layers, n_kv_heads, segments, bytes of a segment)
    logits     float32 (n, padded vocabulary): rows for the last n tokens of the batch, overwritten;
               with batch.n_best, see screened_head
    cancel     int64 (1,): when not 0, the call ends before the next layer
    Returns 1 when cancelled (cache rows of the batch are then undefined), else 0.
    """
    arguments = plan, matrices, vectors, buffers, batch, cache, logits, cancel
    return calls.run(cells, n_threads, calls.bind(_layers, arguments))


@entry
def dense_head(cells, n_threads, plan, matrices, x, blocks, logits, cancel):
    """logits of rows x that the last norm has left, with the bits of `forward`.

    x        float32 (n, padded hidden)
    blocks   uint8 (n, padded hidden in int8 blocks), overwritten
    logits   float32 (n, padded vocabulary), overwritten
    """
    return calls.run(cells, n_threads, calls.bind(_head, (plan, matrices, x, blocks, logits)))


@kernel
def _head(thread, n_threads, cells, plan, matrices, x, blocks, logits):
    """The share of one thread in `dense_head`."""
    n = x.shape[0]
    _requantize(plan, x, blocks, n * thread // n_threads, n * (thread + 1) // n_threads)
    sync.barrier(cells, n_threads)
    project(matrices[HEAD], 0, x, blocks, logits, thread, n_threads)
    return 0


@kernel
def _layers(
    thread, n_threads, cells, plan, matrices, vectors, buffers, batch, cache, logits, cancel
):
    """The share of one thread in `forward`."""
    tokens = batch.token_ids.size
    first, last = tokens * thread // n_threads, tokens * (thread + 1) // n_threads
    _embed(plan, matrices, batch, buffers, first, last)
    for layer in range(plan.n_layers):
        m = matrices[FIRST_LAYER + N_MATRICES * layer :]
        v = vectors[layer]
        if thread == 0:
            buffers.stops[layer] = sync.load(simd.address_of(cancel))
        _normalise(plan, v[NORM], v[NORM_BIAS], buffers, first, last)
        by_inputs = _ready(plan, QKV_SITE, layer, buffers.normed, buffers, batch, thread, n_threads)
        sync.barrier(cells, n_threads)
        if buffers.stops[layer]:
            return 1
        x, coarse = buffers.normed, batch.coarse
        if by_inputs:
            project_inputs(m[WQ_INPUTS], buffers, buffers.q, thread, n_threads)
            project_inputs(m[WK_INPUTS], buffers, buffers.k, thread, n_threads)
            project_inputs(m[WV_INPUTS], buffers, buffers.v, thread, n_threads)
        else:
            _project(m[WQ], coarse, x, buffers.q, buffers, thread, n_threads, cells)
            _project(m[WK], coarse, x, buffers.k, buffers, thread, n_threads, cells)
            _project(m[WV], coarse, x, buffers.v, buffers, thread, n_threads, cells)
        sync.barrier(cells, n_threads)
        if plan.qk_norm_whole:
            normalise_rows(plan, v, buffers, first, last)
            sync.barrier(cells, n_threads)
        place_heads(plan, v, buffers, batch, cache, layer, thread, n_threads)
        sync.barrier(cells, n_threads)
        listed = skips(batch, layer)
        if listed:
            rate_blocks(plan, buffers, batch, layer, thread, n_threads)
            sync.barrier(cells, n_threads)
            attend_listed_heads(plan, buffers, batch, cache, layer, thread, n_threads)
        else:
            attend_heads(plan, v, buffers, batch, cache, layer, thread, n_threads)
        sync.barrier(cells, n_threads)
        if tokens <= FEW:
            merge_heads(plan, buffers, batch, layer, listed, thread, n_threads)
            sync.barrier(cells, n_threads)
        attended, out = buffers.attended, buffers.out
        by_inputs = _ready(plan, O_SITE, layer, attended, buffers, batch, thread, n_threads)
        sync.barrier(cells, n_threads)
        if by_inputs:
            project_inputs(m[WO_INPUTS], buffers, out, thread, n_threads)
        else:
            _project(m[WO], coarse, attended, out, buffers, thread, n_threads, cells)
        sync.barrier(cells, n_threads)
        if not plan.parallel:
            _add(plan, v[BO], v[POST_NORM], buffers, first, last)
        _normalise(plan, v[FFN_NORM], v[FFN_NORM_BIAS], buffers, first, last)
        _requantize(plan, buffers.normed, buffers.blocks, first, last)
        if plan.parallel:
            _add(plan, v[BO], 0, buffers, first, last)
        path = batch.paths[layer] if tokens == 1 else 0
        if path == BY_ROWS and first < last:
            prepare_rows(m, buffers)
        sync.barrier(cells, n_threads)
        if path:
            sparse_feed_forward(plan, layer, m, v, buffers, batch, thread, n_threads, cells)
        else:
            _feed_forward(plan, layer, m, v, buffers, batch, thread, n_threads, cells)
            inner = buffers.gate
            _project(m[W_DOWN], coarse, inner, out, buffers, thread, n_threads, cells)
        sync.barrier(cells, n_threads)
        _add(plan, v[B_DOWN], v[FFN_POST_NORM], buffers, first, last)
    rows = logits.shape[0]
    v = vectors[plan.n_layers]
    first = max(first, tokens - rows)
    _normalise(plan, v[NORM], v[NORM_BIAS], buffers, first, last)
    _requantize(plan, buffers.normed, buffers.blocks, first, last)
    sync.barrier(cells, n_threads)
    if rows:
        x, blocks = buffers.normed[tokens - rows :], buffers.blocks[tokens - rows :]
        if batch.n_best:
            screened_head(plan, matrices, v[BOUNDS], buffers, batch, x, blocks, logits,
                          thread, n_threads, cells)  # fmt: skip
        else:
            project(matrices[HEAD], 0, x, blocks, logits, thread, n_threads)
    return 0


@kernel
def _embed(plan, matrices, batch, buffers, first, last):
    """x = the tokens' embeddings (+ those of their positions)."""
    n_padded = buffers.x.shape[1]
    for t in range(first, last):
        x = row_of(buffers.x, t)
        m = matrices[EMBEDDING]
        call_row(m[ROW], m[DATA], m[BLOCKS], batch.token_ids[t], x)
        if plan.embedding_scale != 1:
            scale = simd.splat(F(plan.embedding_scale))
            for i in range(0, 4 * n_padded, 64):
                simd.store_f32(x + i, simd.mul(simd.load_f32(x + i), scale))
        m = matrices[POSITION]
        if m[DATA] != 0:
            out = row_of(buffers.out, t)
            call_row(m[ROW], m[DATA], m[BLOCKS], batch.positions[t], out)
            add_rows(x, out, 0, n_padded)


@kernel
def _requantize(plan, rows, blocks, first, last):
    """blocks = rows in int8, where any matrix takes them."""
    if plan.any_int8:
        for t in range(first, last):
            quantize(row_of(rows, t), rows.shape[1] // 32, row_of(blocks, t))


@kernel
def _normalise(plan, weight, bias, buffers, first, last):
    """normed = norm(x)."""
    n_padded = buffers.x.shape[1]
    for t in range(first, last):
        x, out = row_of(buffers.x, t), row_of(buffers.normed, t)
        if plan.layernorm:
            layer_norm(x, weight, bias, plan.norm_eps, plan.hidden_size, n_padded, out)
        else:
            rms_norm(x, weight, plan.norm_eps, plan.hidden_size, n_padded, out)


@kernel
def _ready(plan, site, layer, rows, buffers, batch, thread, n_threads):
    """This thread's tokens of `rows` in the form that the site's product takes.

    Whether it takes the list of active inputs of the only token: adapters are never with it.
    """
    tokens = batch.token_ids.size
    first, last = tokens * thread // n_threads, tokens * (thread + 1) // n_threads
    by_inputs = tokens == 1 and batch.projections[layer, site - QKV_SITE] != 0
    if batch.probe:
        probe_inputs(rows, site, layer, batch, first, last)
    if not by_inputs:
        _requantize(plan, rows, buffers.blocks, first, last)
    elif first < last:
        list_inputs(rows, site, layer, buffers, batch, thread)
    return by_inputs


@kernel
def _add(plan, bias, norm, buffers, first, last):
    """x += out (+ bias), or, with the weight of a norm, x += norm(out) (Gemma 2)."""
    n_padded = buffers.x.shape[1]
    for t in range(first, last):
        out = row_of(buffers.out, t)
        if norm != 0:
            rms_norm(out, norm, plan.norm_eps, plan.hidden_size, n_padded, out)
        add_rows(row_of(buffers.x, t), out, bias, n_padded)


@kernel
def _project(matrix, coarse, rows, out, buffers, thread, n_threads, cells):
    """out = rows times the matrix and its adapter; this thread's share of the output columns."""
    project(matrix, coarse, rows, buffers.blocks, out, thread, n_threads)
    add_low_rank(matrix, rows, out, buffers, thread, n_threads, cells)


@kernel
def _feed_forward(plan, layer, matrices, vector, buffers, batch, thread, n_threads, cells):
    """gate = activation(gate) * up, ready for the product with w_down."""
    x, coarse, tokens = buffers.normed, batch.coarse, batch.token_ids.size
    if plan.gated:
        _project(matrices[W_GATE], coarse, x, buffers.gate, buffers, thread, n_threads, cells)
        _project(matrices[W_UP], coarse, x, buffers.up, buffers, thread, n_threads, cells)
    else:
        _project(matrices[W_UP], coarse, x, buffers.gate, buffers, thread, n_threads, cells)
    sync.barrier(cells, n_threads)
    n_blocks = buffers.gate.shape[1] // 32
    n = tokens * n_blocks
    for job in range(n * thread // n_threads, n * (thread + 1) // n_threads):
        t, b = job // n_blocks, job % n_blocks
        up = row_of(buffers.up, t) if plan.gated else 0
        gate_bias = vector[B_GATE] if plan.gated else vector[B_UP]
        gate, i = row_of(buffers.gate, t), 32 * b
        if batch.probe:
            probe_gate(plan, layer, vector, buffers, batch, t, i, i + 32)
        else:
            feed_forward_gate(gate, up, gate_bias, vector[B_UP], plan.activation, i, i + 32)
        if plan.any_int8:
            quantize(gate + 128 * b, 1, row_of(buffers.blocks, t) + BLOCK_BYTES * b)
    sync.barrier(cells, n_threads)
