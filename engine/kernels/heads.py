"""The steps of a layer that go head by head: into the cache, and attention out of it."""

from __future__ import annotations

from engine.kernels import simd
from engine.kernels.attention import View, attend, copy_head, normalise_head, rotate, store_key
from engine.kernels.compiler import kernel
from engine.kernels.tables import BQ, Q_NORM, SLOPES, TILE_ROWS, row_of


@kernel
def place_heads(plan, vector, buffers, batch, keys, values, thread, n_threads):
    """Bias, norm and rotation of each head; queries to scratch, keys and values to the cache."""
    n_dim, n_q, n_kv = plan.head_dim, plan.n_heads, plan.n_kv_heads
    a_token = n_q + 2 * n_kv
    n = a_token * batch.token_ids.size
    for job in range(n * thread // n_threads, n * (thread + 1) // n_threads):
        t, head = job // a_token, job % a_token
        which = 0 if head < n_q else (1 if head < n_q + n_kv else 2)
        if which == 0:
            source, out = row_of(buffers.q, t), row_of(buffers.queries[t], head)
        elif which == 1:
            head -= n_q
            source = row_of(buffers.k, t)
            out = source + 4 * n_dim * head  # finished in place, then scattered
        else:
            head -= n_q + n_kv
            source, out = row_of(buffers.v, t), row_of(values[head], batch.slots[t])
        offset = 4 * n_dim * head
        bias = vector[BQ + which]
        if bias != 0:
            bias += offset
        copy_head(source + offset, bias, plan.clip_qkv, n_dim, out)
        if which < 2:
            if vector[Q_NORM + which] != 0:
                normalise_head(out, vector[Q_NORM + which], plan.norm_eps, n_dim)
            if plan.rotary_dim:
                rotate(out, row_of(batch.cos, t), row_of(batch.sin, t), plan.rotary_dim,
                       plan.interleaved)  # fmt: skip
        if which == 1:
            store_key(out, simd.address_of(keys[head]), batch.slots[t], n_dim, plan.width)


@kernel
def attend_heads(plan, vector, buffers, batch, window, keys, values, thread, n_threads):
    """attended = attention of each head; those that share keys go together, a run of tokens too."""
    per_kv = plan.n_heads // plan.n_kv_heads
    tokens = batch.token_ids.size
    if tokens > 1 and batch.path.shape[1] == 0:
        # a run of tokens: tiles of them, each with all heads that share keys
        tile = max(1, TILE_ROWS // per_kv)
        n = (tokens + tile - 1) // tile * plan.n_kv_heads
        for job in range(n * thread // n_threads, n * (thread + 1) // n_threads):
            t, kv = job // plan.n_kv_heads * tile, job % plan.n_kv_heads
            _attend_some(plan, vector, buffers, batch, window, keys[kv], values[kv], thread,
                         t, min(tile, tokens - t), kv * per_kv, per_kv)  # fmt: skip
        return
    n = plan.n_heads * tokens
    job, last = n * thread // n_threads, n * (thread + 1) // n_threads
    while job < last:
        t, head = job // plan.n_heads, job % plan.n_heads
        kv = head // per_kv
        n_heads = min(last - job, (kv + 1) * per_kv - head)
        _attend_some(plan, vector, buffers, batch, window, keys[kv], values[kv], thread,
                     t, 1, head, n_heads)  # fmt: skip
        job += n_heads


@kernel
def _attend_some(plan, vector, buffers, batch, window, keys, values, thread,
                 t, n_tokens, head, n_heads):  # fmt: skip
    """Attention of n_heads, which share keys, of n_tokens in a run."""
    scores, n_dim = buffers.scores[thread], plan.head_dim
    view = View(
        simd.address_of(keys), simd.address_of(values), plan.width, window, batch.visible[t],
        row_of(batch.path, t), batch.path.shape[1], batch.positions[t], plan.attention_scale,
    )  # fmt: skip
    slopes = vector[SLOPES]
    if slopes != 0:
        slopes += 4 * head
    out = row_of(scores, scores.shape[0] - 1)  # the last row takes the results
    attend(row_of(buffers.queries[t], head), buffers.queries.strides[0], n_tokens, n_heads, view,
           slopes, row_of(scores, 0), scores.strides[0], out)  # fmt: skip
    for i in range(n_tokens):
        for j in range(n_heads):
            to = row_of(buffers.attended, t + i) + 4 * n_dim * (head + j)
            copy_head(out + 4 * plan.width * (i * n_heads + j), 0, 0.0, n_dim, to)
