"""The steps of a layer that go head by head: into the cache, and attention out of it."""

from __future__ import annotations

from engine.kernels import simd
from engine.kernels.activations import layer_norm, rms_norm
from engine.kernels.attention import SEGMENT, View, call_attend, call_store
from engine.kernels.compiler import kernel
from engine.kernels.listed import CHUNK
from engine.kernels.rows import copy_head, normalise_head, rotate
from engine.kernels.softmax import clear, finish, merge, partial_bytes
from engine.kernels.tables import BQ, EVERYTHING, FEW, Q_NORM, SLOPES, TILE_ROWS, row_of

_AHEAD = 8192  # bytes; a third slower without


@kernel
def head_of(cache, layer, kv):
    """Address of a kv head's first segment."""
    return simd.address_of(cache) + cache.strides[0] * layer + cache.strides[1] * kv


@kernel
def query_of(plan, buffers, tokens, t, head):
    """Address of a query: [kv head][token][head], so that rows that share keys lie together."""
    per_kv = plan.n_heads // plan.n_kv_heads
    index = (head // per_kv * tokens + t) * per_kv + head % per_kv
    return simd.address_of(buffers.queries) + 4 * plan.width * index


@kernel
def normalise_rows(plan, vector, buffers, first, last):
    """Bias and clip, then the norm of all heads' queries at once, and of the keys (MPT's qk_ln)."""
    for t in range(first, last):
        for which in range(2):
            row = row_of(buffers.q, t) if which == 0 else row_of(buffers.k, t)
            n = plan.head_dim * (plan.n_heads if which == 0 else plan.n_kv_heads)
            padded, weight = (n + 31) // 32 * 32, vector[Q_NORM + which]
            copy_head(row, vector[BQ + which], plan.clip_qkv, n, row)
            if plan.layernorm:
                layer_norm(row, weight, 0, plan.norm_eps, n, padded, row)
            else:
                rms_norm(row, weight, plan.norm_eps, n, padded, row)


@kernel
def place_heads(plan, vector, buffers, batch, cache, layer, thread, n_threads):
    """Bias, norm and rotation of each head; queries to scratch, keys and values to the cache."""
    n_dim, n_q, n_kv = plan.head_dim, plan.n_heads, plan.n_kv_heads
    a_token, tokens = n_q + 2 * n_kv, batch.token_ids.size
    n = a_token * tokens
    for job in range(n * thread // n_threads, n * (thread + 1) // n_threads):
        t, head = job // a_token, job % a_token
        which = 0 if head < n_q else (1 if head < n_q + n_kv else 2)
        if which == 0:
            source = row_of(buffers.q, t)
        elif which == 1:
            head -= n_q
            source = row_of(buffers.k, t)
        else:
            head -= n_q + n_kv
            source = row_of(buffers.v, t)
        source += 4 * n_dim * head
        out = query_of(plan, buffers, tokens, t, head) if which == 0 else source
        bias, clip = vector[BQ + which], plan.clip_qkv
        if bias != 0:
            bias += 4 * n_dim * head
        whole = plan.qk_norm_whole and which < 2
        if whole:  # done: see normalise_rows
            bias, clip = 0, 0.0
        copy_head(source, bias, clip, n_dim, out)
        if which < 2:
            if vector[Q_NORM + which] != 0 and not whole:
                normalise_head(out, vector[Q_NORM + which], plan.norm_eps, n_dim)
            if plan.rotary_dim:
                local = plan.local_rope and batch.windows[layer] < EVERYTHING
                at = 2 * plan.rotary_dim if local else 0  # behind those of the other layers
                rotate(out, row_of(batch.cos, t) + at, row_of(batch.sin, t) + at, plan.rotary_dim,
                       plan.interleaved)  # fmt: skip
        if which > 0:
            store = plan.store_key if which == 1 else plan.store_value
            call_store(store, out, head_of(cache, layer, head), plan.width, batch.slots[t], n_dim)


@kernel
def _view(plan, vector, buffers, batch, cache, layer, thread, kv, t, n_tokens):
    """A job: n_tokens from t on, with the heads that share kv's keys."""
    per_kv = plan.n_heads // plan.n_kv_heads
    n_path = batch.path.shape[1]
    slopes = vector[SLOPES]
    if slopes != 0:
        slopes += 4 * kv * per_kv
    return View(
        head_of(cache, layer, kv),
        plan.width,
        query_of(plan, buffers, batch.token_ids.size, t, kv * per_kv),
        n_tokens,
        per_kv,
        simd.address_of(batch.positions) + 8 * t,
        simd.address_of(batch.visible) + 8 * t,
        simd.address_of(batch.path) + 8 * n_path * t,
        n_path,
        batch.windows[layer],
        slopes,
        plan.attention_scale,
        plan.attention_softcap,
        row_of(buffers.scores[thread], 0),
    )


@kernel
def _segments(batch, window, first, last):
    """The segments [begin, end) that tokens first … last see anything of."""
    oldest = max(0, batch.positions[first] + 1 - window)
    return oldest // SEGMENT, (batch.visible[last] + batch.path.shape[1] + SEGMENT - 1) // SEGMENT


@kernel
def partial_of(plan, buffers, batch, segment, kv, t):
    """Where few tokens leave a segment's partial results: [segment][kv head][token][head]."""
    per_kv, tokens = plan.n_heads // plan.n_kv_heads, batch.token_ids.size
    row = ((segment * plan.n_kv_heads + kv) * tokens + t) * per_kv
    return simd.address_of(buffers.partials) + partial_bytes(plan.width) * row


@kernel
def attend_heads(plan, vector, buffers, batch, cache, layer, thread, n_threads):
    """Attention of all tokens: attended, or, of few tokens, partial results (see merge_heads).

    A job is a tile of tokens and a kv head; of few tokens also one segment, or a long text's
    attention would be the work of as many threads as there are kv heads.
    """
    per_kv, n_kv, tokens = plan.n_heads // plan.n_kv_heads, plan.n_kv_heads, batch.token_ids.size
    tile = max(1, TILE_ROWS // per_kv)
    n_jobs = (tokens + tile - 1) // tile * n_kv
    window = batch.windows[layer]
    begin, end = _segments(batch, window, 0, tokens - 1)
    n_parts = end - begin if tokens <= FEW else 1
    n = n_jobs * n_parts
    for job in range(n * thread // n_threads, n * (thread + 1) // n_threads):
        part, kv, t = job % n_parts, job // n_parts % n_kv, job // n_parts // n_kv * tile
        n_tokens = min(tile, tokens - t)
        view = _view(plan, vector, buffers, batch, cache, layer, thread, kv, t, n_tokens)
        if tokens <= FEW:
            out = partial_of(plan, buffers, batch, part, kv, t)
            more = begin + part + 1 < end
            call_attend(plan.attend, view, begin + part, _AHEAD if more else 0, out)
        else:
            first, last = _segments(batch, window, t, t + n_tokens - 1)
            _attend_tile(plan, view, first, last, buffers, thread)
            for i in range(n_tokens * per_kv):
                result = _result(plan, buffers, thread, i)
                to = row_of(buffers.attended, t + i // per_kv)
                finish(result, plan.width, plan.head_dim,
                       to + 4 * plan.head_dim * (kv * per_kv + i % per_kv))  # fmt: skip


@kernel
def _result(plan, buffers, thread, i):
    """The i-th of a thread's own rows of partial results: first a tile's sums, then a segment's."""
    size = partial_bytes(plan.width)
    n_rows = 2 * buffers.scores.shape[1]
    return simd.address_of(buffers.partials) + size * (thread * n_rows + i)


@kernel
def _attend_tile(plan, view, begin, end, buffers, thread):
    """All segments for the rows of one job, merged as they come."""
    rows, size = view.tokens * view.heads, partial_bytes(plan.width)
    results = _result(plan, buffers, thread, 0)
    partials = _result(plan, buffers, thread, buffers.scores.shape[1])
    for i in range(rows):
        clear(results + size * i, plan.width)
    for segment in range(begin, end):
        call_attend(plan.attend, view, segment, _AHEAD if segment + 1 < end else 0, partials)
        for i in range(rows):
            merge(partials + size * i, plan.width, results + size * i)


@kernel
def merge_heads(plan, buffers, batch, layer, listed, thread, n_threads):
    """attended from the partial results of few tokens; listed: of those in lists of blocks."""
    tokens, n_heads, n_kv = batch.token_ids.size, plan.n_heads, plan.n_kv_heads
    per_kv, size = n_heads // n_kv, partial_bytes(plan.width)
    begin, end = _segments(batch, batch.windows[layer], 0, tokens - 1)
    n_parts = end - begin
    n = tokens * n_heads
    for job in range(n * thread // n_threads, n * (thread + 1) // n_threads):
        t, head = job // n_heads, job % n_heads
        result = row_of(buffers.scores[thread], 0)
        clear(result, plan.width)
        if listed:
            n_parts = (buffers.n_listed[thread, t * n_kv + head // per_kv] + CHUNK - 1) // CHUNK
        for part in range(n_parts):
            partial = partial_of(plan, buffers, batch, part, head // per_kv, t)
            merge(partial + size * (head % per_kv), plan.width, result)
        finish(result, plan.width, plan.head_dim,
               row_of(buffers.attended, t) + 4 * plan.head_dim * head)  # fmt: skip
