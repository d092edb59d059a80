"""Adapters (LoRA, arXiv:2106.09685): B (A x) on top of what a matrix gives for x.

A is first packed, `low`: [group of 16 ranks][column][16 ranks]; then B, times the adapter's scale,
`high`: [group of 16 outputs][rank][16 outputs]. Activations stay float32, whatever the matrix
itself takes. A token's sums go in one order, alone and among others.
"""

from __future__ import annotations

from numba import types
from numba.extending import intrinsic

from engine.kernels import simd, sync
from engine.kernels.address import caller
from engine.kernels.compiler import callback, kernel
from engine.kernels.projection import share
from engine.kernels.tables import BLOCKS, EXPAND, FEW, HIGH, LOW, RANK, SHRINK, SHRUNK, row_of

_address = _count = types.int64
MAX_RANK = 256
AHEAD = 1024  # bytes asked for in advance

# shrink(low, rank, columns, x, x_stride, first, last, out, out_stride)
#   out[t, :rank] = A x[t] for tokens [first, last); columns a multiple of 4, float32 all
SHRINK_SIGNATURE = types.void(*[_address] * 9)
# expand(high, rank, first, last, z, z_stride, tokens, out, out_stride)
#   out[t, 16 first : 16 last] += B z[t]
EXPAND_SIGNATURE = types.void(*[_address] * 9)


@intrinsic
def _call_shrink(typing, kernel, low, rank, columns, x, x_stride, first, last, out, out_stride):
    """shrink by the kernel at an address."""
    return caller(SHRINK_SIGNATURE)


@intrinsic
def _call_expand(typing, kernel, high, rank, first, last, z, z_stride, tokens, out, out_stride):
    """expand by the kernel at an address."""
    return caller(EXPAND_SIGNATURE)


@kernel
def add_low_rank(matrix, rows, out, buffers, thread, n_threads, cells):
    """out += B (A rows), this thread's share of the columns, where the matrix has an adapter.

    rows   float32 (T, padded n_in)      out   float32 (T, padded n_out), as `project` left it
    Of few tokens each thread computes A x for itself, which costs less than to wait for others; of
    many, for its own share of them.
    """
    rank = matrix[RANK]
    if rank == 0:
        return
    tokens, z_stride = rows.shape[0], buffers.shrunk.strides[0]
    first, last = share(matrix, thread, n_threads)
    z = simd.address_of(buffers.shrunk) + 4 * matrix[SHRUNK]
    begin, end = 0, tokens
    if tokens > FEW:
        begin, end = tokens * thread // n_threads, tokens * (thread + 1) // n_threads
    else:
        z += FEW * z_stride * thread
        if first == last:
            return
    _call_shrink(matrix[SHRINK], matrix[LOW], rank, 32 * matrix[BLOCKS], row_of(rows, 0),
                 rows.strides[0], begin, end, z, z_stride)  # fmt: skip
    if tokens > FEW:
        sync.barrier(cells, n_threads)
    _call_expand(matrix[EXPAND], matrix[HIGH], rank, first, last, z, z_stride, tokens,
                 row_of(out, 0), out.strides[0])  # fmt: skip


@kernel
def _shrink(load, width, low, rank, columns, x, x_stride, first, last, out, out_stride):
    """Four sums a lane, of every fourth column each: one alone would wait for itself."""
    for g in range((rank + 15) // 16):
        base, to = low + 16 * width * columns * g, out + 64 * g
        t = first
        while t + 2 <= last:
            a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = simd.zero_f32()
            at, other = x + t * x_stride, x + (t + 1) * x_stride
            for i in range(0, columns, 4):
                w = base + 16 * width * i
                w0, w1 = load(w), load(w + 16 * width)
                w2, w3 = load(w + 32 * width), load(w + 48 * width)
                a0 = simd.fma(w0, simd.splat(simd.get_f32(at + 4 * i)), a0)
                a1 = simd.fma(w1, simd.splat(simd.get_f32(at + 4 * i + 4)), a1)
                a2 = simd.fma(w2, simd.splat(simd.get_f32(at + 4 * i + 8)), a2)
                a3 = simd.fma(w3, simd.splat(simd.get_f32(at + 4 * i + 12)), a3)
                b0 = simd.fma(w0, simd.splat(simd.get_f32(other + 4 * i)), b0)
                b1 = simd.fma(w1, simd.splat(simd.get_f32(other + 4 * i + 4)), b1)
                b2 = simd.fma(w2, simd.splat(simd.get_f32(other + 4 * i + 8)), b2)
                b3 = simd.fma(w3, simd.splat(simd.get_f32(other + 4 * i + 12)), b3)
            simd.store_f32(to + t * out_stride, simd.add(simd.add(a0, a1), simd.add(a2, a3)))
            simd.store_f32(to + (t + 1) * out_stride, simd.add(simd.add(b0, b1), simd.add(b2, b3)))
            t += 2
        if t < last:
            a0 = a1 = a2 = a3 = simd.zero_f32()
            at = x + t * x_stride
            for i in range(0, columns, 4):
                w = base + 16 * width * i
                for line in range(0, 64 * width, 64):
                    simd.prefetch(w + AHEAD + line)
                a0 = simd.fma(load(w), simd.splat(simd.get_f32(at + 4 * i)), a0)
                w += 16 * width
                a1 = simd.fma(load(w), simd.splat(simd.get_f32(at + 4 * i + 4)), a1)
                w += 16 * width
                a2 = simd.fma(load(w), simd.splat(simd.get_f32(at + 4 * i + 8)), a2)
                w += 16 * width
                a3 = simd.fma(load(w), simd.splat(simd.get_f32(at + 4 * i + 12)), a3)
            simd.store_f32(to + t * out_stride, simd.add(simd.add(a0, a1), simd.add(a2, a3)))


@kernel
def _expand(load, width, high, rank, first, last, z, z_stride, tokens, out, out_stride):
    """Eight tokens share one read of B: so many sums need not wait for each other."""
    for g in range(first, last):
        base, to = high + 16 * width * rank * g, out + 64 * g
        t = 0
        while t + 8 <= tokens:
            _expand_eight(load, width, base, rank, z + t * z_stride, z_stride,
                          to + t * out_stride, out_stride)  # fmt: skip
            t += 8
        while t < tokens:
            total = simd.load_f32(to + t * out_stride)
            for r in range(rank):
                w = base + 16 * width * r
                if t == 0:
                    simd.prefetch(w + AHEAD)
                total = simd.fma(load(w), simd.splat(simd.get_f32(z + t * z_stride + 4 * r)), total)
            simd.store_f32(to + t * out_stride, total)
            t += 1


@kernel
def _expand_eight(load, width, base, rank, z, z_stride, out, out_stride):
    at1, at2, at3 = out + out_stride, out + 2 * out_stride, out + 3 * out_stride
    at4, at5, at6 = at3 + out_stride, at3 + 2 * out_stride, at3 + 3 * out_stride
    at7 = at6 + out_stride
    a0, a1, a2, a3 = simd.load_f32(out), simd.load_f32(at1), simd.load_f32(at2), simd.load_f32(at3)
    a4, a5, a6, a7 = simd.load_f32(at4), simd.load_f32(at5), simd.load_f32(at6), simd.load_f32(at7)
    for r in range(rank):
        w, at = load(base + 16 * width * r), z + 4 * r
        a0 = simd.fma(w, simd.splat(simd.get_f32(at)), a0)
        a1 = simd.fma(w, simd.splat(simd.get_f32(at + z_stride)), a1)
        a2 = simd.fma(w, simd.splat(simd.get_f32(at + 2 * z_stride)), a2)
        a3 = simd.fma(w, simd.splat(simd.get_f32(at + 3 * z_stride)), a3)
        a4 = simd.fma(w, simd.splat(simd.get_f32(at + 4 * z_stride)), a4)
        a5 = simd.fma(w, simd.splat(simd.get_f32(at + 5 * z_stride)), a5)
        a6 = simd.fma(w, simd.splat(simd.get_f32(at + 6 * z_stride)), a6)
        a7 = simd.fma(w, simd.splat(simd.get_f32(at + 7 * z_stride)), a7)
    simd.store_f32(out, a0)
    simd.store_f32(at1, a1)
    simd.store_f32(at2, a2)
    simd.store_f32(at3, a3)
    simd.store_f32(at4, a4)
    simd.store_f32(at5, a5)
    simd.store_f32(at6, a6)
    simd.store_f32(at7, a7)


@callback(SHRINK_SIGNATURE)
def shrink_f32(low, rank, columns, x, x_stride, first, last, out, out_stride):
    _shrink(simd.load_f32, 4, low, rank, columns, x, x_stride, first, last, out, out_stride)


@callback(SHRINK_SIGNATURE)
def shrink_f16(low, rank, columns, x, x_stride, first, last, out, out_stride):
    _shrink(simd.load_f16, 2, low, rank, columns, x, x_stride, first, last, out, out_stride)


@callback(EXPAND_SIGNATURE)
def expand_f32(high, rank, first, last, z, z_stride, tokens, out, out_stride):
    _expand(simd.load_f32, 4, high, rank, first, last, z, z_stride, tokens, out, out_stride)


@callback(EXPAND_SIGNATURE)
def expand_f16(high, rank, first, last, z, z_stride, tokens, out, out_stride):
    _expand(simd.load_f16, 2, high, rank, first, last, z, z_stride, tokens, out, out_stride)
