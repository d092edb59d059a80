"""The feed-forward of one token, of which only what is active is read.

The gate is computed whole. Rows of `up` whose |activation(gate)|, times the neuron's importance, is
not above the first threshold of the layer are not read, nor is what `down` does with them; of the
products of the others, those that are not above the second are not read by `down` (CATS,
arXiv:2404.08763; TEAL, arXiv:2408.14690). The importance is how large the row's product mostly is,
for which a token has to pay nothing: it stands for the product that is not computed. At thresholds
of 0 only exact zeros are skipped, which ReLU makes.

A thread keeps to its own share of the neurons up to `down`, so that there is one barrier here
instead of three.
"""

from __future__ import annotations

import numpy as np

from engine.kernels import pieces, simd, sync
from engine.kernels.activations import activate, feed_forward_gate
from engine.kernels.compiler import kernel
from engine.kernels.matmul import call_matmul
from engine.kernels.partial import active_inputs, call_inputs, call_rows, spread
from engine.kernels.tables import (
    B_GATE,
    B_UP,
    BLOCKS,
    DATA,
    DOWN_INPUTS,
    GROUPS,
    INT8,
    MATMUL,
    SCALES,
    STRIDE,
    UP_ROWS,
    W_GATE,
    W_UP,
    row_of,
)

F = np.float32
# how a layer's feed-forward goes, in batch.paths: everything, rows of up and inputs of down, or the
# latter only
DENSE, BY_ROWS, BY_INPUTS = range(3)


@kernel
def prepare_rows(matrices, buffers):
    """What rows of `up` are multiplied with, out of the int8 blocks of the normed row."""
    up = matrices[UP_ROWS]
    if up[INT8]:
        blocks = simd.address_of(buffers.blocks)
        spread(blocks, buffers.x.shape[1] // 32, simd.address_of(buffers.spread))


@kernel
def sparse_feed_forward(plan, layer, matrices, vector, buffers, batch, thread, n_threads, cells):
    """buffers.out = the feed-forward of the only token, by batch.paths[layer]."""
    n_blocks = buffers.gate.shape[1] // 32
    first, last = n_blocks * thread // n_threads, n_blocks * (thread + 1) // n_threads
    gate, active = row_of(buffers.gate, 0), simd.address_of(buffers.active)
    threshold = batch.thresholds[layer, 1]
    n_rows = 32 * (last - first)
    scales = matrices[DOWN_INPUTS][SCALES]
    if batch.paths[layer] == BY_ROWS:
        n_rows = _read_rows(plan, layer, matrices, vector, buffers, batch, first, last)
        n_inputs = _gather(buffers, vector[B_UP], active, n_blocks, first, last, n_rows, threshold)
    else:
        up = 0
        if plan.gated:
            _project(matrices[W_GATE], buffers, gate, first, last)
            up = row_of(buffers.up, 0)
            _project(matrices[W_UP], buffers, up, first, last)
        else:
            _project(matrices[W_UP], buffers, gate, first, last)
        bias = vector[B_GATE] if plan.gated else vector[B_UP]
        feed_forward_gate(gate, up, bias, vector[B_UP], plan.activation, 32 * first, 32 * last)
        n_inputs = choose(gate, active, n_blocks, first, last, threshold)
    if scales != 0:
        _scale(scales, matrices[DOWN_INPUTS][STRIDE], active, n_blocks, first, last)
    buffers.n_active[thread, layer, 0] += n_rows
    buffers.n_active[thread, layer, 1] += n_inputs
    sync.barrier(cells, n_threads)
    down = matrices[DOWN_INPUTS]
    tiles = down[GROUPS]
    call_inputs(down[MATMUL], down[DATA], down[STRIDE], tiles, n_blocks, active,
                tiles * thread // n_threads, tiles * (thread + 1) // n_threads,
                row_of(buffers.out, 0))  # fmt: skip


@kernel
def _project(matrix, buffers, out, first, last):
    """Blocks [first, last) of 32 outputs of a dense product with the normed row."""
    x = simd.address_of(buffers.blocks) if matrix[INT8] else simd.address_of(buffers.normed)
    # the last block may be half a group short
    end = min(2 * last, matrix[GROUPS])
    call_matmul(matrix[MATMUL], matrix[DATA], 2 * first, end, matrix[BLOCKS], x, 0, 1, out, 0)


@kernel
def _read_rows(plan, layer, matrices, vector, buffers, batch, first, last):
    """List the neurons whose gate is above the threshold, and read their rows of `up`.

    The list, buffers.rows, and the products begin at 32 first; returns how many there are.
    """
    gate, products = row_of(buffers.gate, 0), row_of(buffers.up, 0) + 128 * first
    rows = simd.address_of(buffers.rows) + 128 * first
    up, threshold = matrices[UP_ROWS], batch.thresholds[layer, 0]
    importance = row_of(batch.importance, layer)
    x = simd.address_of(buffers.spread) if up[INT8] else simd.address_of(buffers.normed)
    _project(matrices[W_GATE], buffers, gate, first, last)
    feed_forward_gate(gate, 0, vector[B_GATE], 0, plan.activation, 32 * first, 32 * last)
    n = 0
    for i in range(32 * first, 32 * last):  # without a branch: which ones are active is chance
        simd.set_i32(rows + 4 * n, i)
        n += abs(simd.get_f32(gate + 4 * i)) * simd.get_f32(importance + 4 * i) > threshold
    call_rows(up[MATMUL], up[DATA], up[STRIDE], up[BLOCKS], rows, n, x, products)
    return n


@kernel
def _gather(buffers, bias, active, n_blocks, first, last, n, threshold):
    """The active inputs of `down` among the n neurons whose rows were read; how many they are."""
    counts, inputs, values, sums = active_inputs(active, n_blocks)
    for b in range(first, last):
        pieces.set_i64(counts + 8 * b, 0)
        simd.set_f32(sums + 4 * b, F(0))
    rows = simd.address_of(buffers.rows) + 128 * first
    products, gate = row_of(buffers.up, 0) + 128 * first, row_of(buffers.gate, 0)
    n_inputs = 0
    for k in range(n):
        i = simd.get_i32(rows + 4 * k)
        up = simd.get_f32(products + 4 * k)
        if bias != 0:
            up += simd.get_f32(bias + 4 * i)
        value = simd.get_f32(gate + 4 * i) * up
        if abs(value) > threshold:
            b = i >> 5
            count = simd.get_i64(counts + 8 * b)
            simd.set_i32(inputs + 128 * b + 4 * count, i & 31)
            simd.set_f32(values + 128 * b + 4 * count, value)
            pieces.set_i64(counts + 8 * b, count + 1)
            simd.set_f32(sums + 4 * b, simd.get_f32(sums + 4 * b) + value)
            n_inputs += 1
    return n_inputs


@kernel
def _scale(scales, stride, active, n_blocks, first, last):
    """The values of active inputs times their columns' scales, behind each block."""
    counts, inputs, values, _ = active_inputs(active, n_blocks)
    for b in range(first, last):
        for j in range(simd.get_i64(counts + 8 * b)):
            scale = scales + (32 * stride + 128) * b + 4 * simd.get_i32(inputs + 128 * b + 4 * j)
            value = values + 128 * b + 4 * j
            simd.set_f32(value, simd.get_f32(value) * simd.get_f32(scale))


@kernel
def choose(products, active, n_blocks, first, last, threshold):
    """The active inputs of `down` among all products of blocks [first, last); how many they are."""
    counts, inputs, values, sums = active_inputs(active, n_blocks)
    n_inputs = 0
    for b in range(first, last):
        n, total = 0, F(0)
        for i in range(32):
            value = simd.get_f32(products + 128 * b + 4 * i)
            above = abs(value) > threshold
            simd.set_i32(inputs + 128 * b + 4 * n, i)
            simd.set_f32(values + 128 * b + 4 * n, value)
            n += above
            total += value if above else F(0)
        pieces.set_i64(counts + 8 * b, n)
        simd.set_f32(sums + 4 * b, total)
        n_inputs += n
    return n_inputs


@kernel
def probe_gate(plan, layer, vector, buffers, batch, t, first, last):
    """feed_forward_gate of token t for a dense call that is to tell what thresholds would do.

    From token batch.record_from on, the activations of the gate and the products are recorded;
    from token batch.probe_from on, what would be skipped becomes 0.
    """
    gate, up = row_of(buffers.gate, t), row_of(buffers.up, t)
    recorded, is_recorded = batch.token_ids.size - batch.record_from, t >= batch.record_from
    gate_bias = vector[B_GATE] if plan.gated else vector[B_UP]
    up_bias, importance = vector[B_UP], row_of(batch.importance, layer)
    least = simd.splat(batch.thresholds[layer, 0])
    least_product = simd.splat(batch.thresholds[layer, 1])
    for i in range(4 * first, 4 * last, 64):
        value = simd.load_f32(gate + i)
        if gate_bias != 0:
            value = simd.add(value, simd.load_f32(gate_bias + i))
        value = activate(value, plan.activation)
        product = value
        if plan.gated:
            other = simd.load_f32(up + i)
            if up_bias != 0:
                other = simd.add(other, simd.load_f32(up_bias + i))
            product = simd.mul(value, other)
        if is_recorded:
            row = 2 * layer * recorded + t - batch.record_from
            simd.store_f32(row_of(batch.record, row) + i, value)
            simd.store_f32(row_of(batch.record, row + recorded) + i, product)
        if t >= batch.probe_from:
            kept = pieces.where_above(simd.absolute(product), least_product, product)
            if plan.gated:
                size = simd.mul(simd.absolute(value), simd.load_f32(importance + i))
                kept = pieces.where_above(size, least, kept)
            product = kept
        simd.store_f32(gate + i, product)
