"""A batch of rows times one of the layer loop's matrices, on all threads together."""

from __future__ import annotations

from engine.kernels import simd
from engine.kernels.compiler import kernel
from engine.kernels.matmul import call_matmul
from engine.kernels.tables import BLOCKS, DATA, GROUPS, INT8, MATMUL, MATMUL_COARSE


@kernel
def share(matrix, thread, n_threads):
    """The groups of 16 outputs that are a thread's: [first, last)."""
    groups = matrix[GROUPS]
    return groups * thread // n_threads, groups * (thread + 1) // n_threads


@kernel
def project(matrix, coarse, rows, blocks, out, thread, n_threads):
    """out = rows times the matrix; this thread's share of the output columns.

    coarse   1: with one byte an activation, where they are bytes
    """
    first, last = share(matrix, thread, n_threads)
    if matrix[INT8]:
        x, stride = simd.address_of(blocks), blocks.strides[0]
    else:
        x, stride = simd.address_of(rows), rows.strides[0]
    kernel_at = matrix[MATMUL_COARSE] if coarse else matrix[MATMUL]
    call_matmul(kernel_at, matrix[DATA], first, last, matrix[BLOCKS], x, stride,
                min(rows.shape[0], out.shape[0]), simd.address_of(out), out.strides[0])  # fmt: skip
