"""Products of one token's q, k, v and o that read only the weights of inputs above a threshold.

Inputs of q, k and v are the normed row, those of o what the heads attended to (TEAL,
arXiv:2408.14690). The thread that makes the row lists its active inputs for all, before the barrier
that is there anyway; then each takes its share of the outputs.
"""

from __future__ import annotations

from engine.kernels import pieces, simd
from engine.kernels.compiler import kernel
from engine.kernels.partial import call_inputs
from engine.kernels.sparse import choose
from engine.kernels.tables import BLOCKS, DATA, GROUPS, MATMUL, QKV_SITE, STRIDE, row_of


@kernel
def list_inputs(rows, site, layer, buffers, batch, thread):
    """buffers.active = the inputs of the only row of `rows` that are above the site's threshold."""
    n_blocks, active = rows.shape[1] // 32, simd.address_of(buffers.active)
    threshold = batch.thresholds[layer, site]
    n_inputs = choose(row_of(rows, 0), active, n_blocks, 0, n_blocks, threshold)
    buffers.n_active[thread, layer, site] += n_inputs


@kernel
def project_inputs(matrix, buffers, out, thread, n_threads):
    """out[0] = the active inputs times the matrix; this thread's share of the outputs."""
    tiles = matrix[GROUPS]
    call_inputs(matrix[MATMUL], matrix[DATA], matrix[STRIDE], tiles, matrix[BLOCKS],
                simd.address_of(buffers.active), tiles * thread // n_threads,
                tiles * (thread + 1) // n_threads, row_of(out, 0))  # fmt: skip


@kernel
def probe_inputs(rows, site, layer, batch, first, last):
    """For a dense call that is to tell what thresholds would do, rows [first, last) of inputs.

    They are recorded from token batch.record_from on; from token batch.probe_from on, what would be
    skipped becomes 0.
    """
    recorded = batch.token_ids.size - batch.record_from
    least = simd.splat(batch.thresholds[layer, site])
    for t in range(first, last):
        row = row_of(rows, t)
        number = (2 * layer + site - QKV_SITE) * recorded + t - batch.record_from
        for i in range(0, 4 * rows.shape[1], 64):
            value = simd.load_f32(row + i)
            if t >= batch.record_from:
                simd.store_f32(row_of(batch.input_record, number) + i, value)
            if t >= batch.probe_from:
                simd.store_f32(row + i, pieces.where_above(simd.absolute(value), least, value))
