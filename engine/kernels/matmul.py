"""What all weight formats' kernels share: their signatures, and the product with float weights."""

from __future__ import annotations

from numba import types
from numba.extending import intrinsic

from engine.kernels import simd
from engine.kernels.activations import BLOCK_BYTES as X_BYTES
from engine.kernels.address import caller
from engine.kernels.compiler import kernel

_address = _count = types.int64

# matmul(weight, first_group, last_group, blocks, x, x_stride, tokens, out, out_stride)
#   out[t, 16 g : 16 g + 16] = weight rows of group g times x[t], for g in [first_group, last_group)
#   weight       the packed matrix          x    (tokens, x_stride bytes): float32 or int8 blocks
#   out          float32 (tokens, out_stride bytes), the groups' columns overwritten
MATMUL = types.void(_address, _count, _count, _count, _address, _count, _count, _address, _count)

# how far decoding asks for memory in advance: twice the speed of none, on two machines
AHEAD = 4096

# row(weight, blocks, index, out): one row of the matrix, float32 (32 blocks), dequantised
ROW = types.void(_address, _count, _count, _address)


@intrinsic
def call_matmul(typing, kernel, weight, first, last, blocks, x, x_stride, tokens, out, out_stride):
    """MATMUL by the kernel at an address: the layer loop knows no weight format."""
    return caller(MATMUL)


@intrinsic
def call_row(typing, kernel, weight, blocks, index, out):
    """ROW by the kernel at an address."""
    return caller(ROW)


@kernel
def matmul_blocks(dot, n_bytes, weight, first, last, blocks, x, x_stride, tokens, out, out_stride):
    """MATMUL for a quantised matrix; `dot(w, x, total)` adds the product of one block of n_bytes.

    Up to four tokens share one read of the weights: alone, a second one costs a tenth of a first.
    """
    for g in range(first, last):
        base = weight + g * blocks * n_bytes
        t = 0
        while t + 4 <= tokens:
            a0 = a1 = a2 = a3 = simd.zero_f32()
            at = x + t * x_stride
            for b in range(blocks):
                w = base + b * n_bytes
                if t == 0:  # the later tiles find this group in the cache
                    for line in range(0, n_bytes, 64):
                        simd.prefetch(w + AHEAD + line)
                a0 = dot(w, at, a0)
                a1 = dot(w, at + x_stride, a1)
                a2 = dot(w, at + 2 * x_stride, a2)
                a3 = dot(w, at + 3 * x_stride, a3)
                at += X_BYTES
            to = out + 64 * g + t * out_stride
            simd.store_f32(to, a0)
            simd.store_f32(to + out_stride, a1)
            simd.store_f32(to + 2 * out_stride, a2)
            simd.store_f32(to + 3 * out_stride, a3)
            t += 4
        rest = tokens - t
        if rest == 3:
            a0 = a1 = a2 = simd.zero_f32()
            at = x + t * x_stride
            for b in range(blocks):
                w = base + b * n_bytes
                if t == 0:
                    for line in range(0, n_bytes, 64):
                        simd.prefetch(w + AHEAD + line)
                a0 = dot(w, at, a0)
                a1 = dot(w, at + x_stride, a1)
                a2 = dot(w, at + 2 * x_stride, a2)
                at += X_BYTES
            to = out + 64 * g + t * out_stride
            simd.store_f32(to, a0)
            simd.store_f32(to + out_stride, a1)
            simd.store_f32(to + 2 * out_stride, a2)
        elif rest == 2:
            a0 = a1 = simd.zero_f32()
            at = x + t * x_stride
            for b in range(blocks):
                w = base + b * n_bytes
                if t == 0:
                    for line in range(0, n_bytes, 64):
                        simd.prefetch(w + AHEAD + line)
                a0 = dot(w, at, a0)
                a1 = dot(w, at + x_stride, a1)
                at += X_BYTES
            to = out + 64 * g + t * out_stride
            simd.store_f32(to, a0)
            simd.store_f32(to + out_stride, a1)
        elif rest == 1:
            a0 = simd.zero_f32()
            at = x + t * x_stride
            for b in range(blocks):
                w = base + b * n_bytes
                if t == 0:
                    for line in range(0, n_bytes, 64):
                        simd.prefetch(w + AHEAD + line)
                a0 = dot(w, at, a0)
                at += X_BYTES
            to = out + 64 * g + t * out_stride
            simd.store_f32(to, a0)


@kernel
def matmul_floats(load, width, weight, first, last, blocks, x, x_stride, tokens, out, out_stride):
    """MATMUL for a matrix of floats that lies as [group][column][16 rows], `width` bytes each.

    `load` reads 16 of them as float32. Eight tokens share one read of the weights.
    """
    n_in = 32 * blocks
    for g in range(first, last):
        base = weight + g * n_in * 16 * width
        column = out + 64 * g
        t = 0
        while t + 8 <= tokens:
            _tile8(load, width, base, n_in, x + t * x_stride, x_stride,
                   column + t * out_stride, out_stride)  # fmt: skip
            t += 8
        while t < tokens:
            total = simd.zero_f32()
            here = x + t * x_stride
            for i in range(n_in):
                value = simd.splat(simd.get_f32(here + 4 * i))
                total = simd.fma(load(base + 16 * width * i), value, total)
            simd.store_f32(column + t * out_stride, total)
            t += 1


@kernel
def _tile8(load, width, base, n_in, x, x_stride, out, out_stride):
    a0 = a1 = a2 = a3 = a4 = a5 = a6 = a7 = simd.zero_f32()
    for i in range(n_in):
        w = load(base + 16 * width * i)
        at = x + 4 * i
        a0 = simd.fma(w, simd.splat(simd.get_f32(at)), a0)
        a1 = simd.fma(w, simd.splat(simd.get_f32(at + x_stride)), a1)
        a2 = simd.fma(w, simd.splat(simd.get_f32(at + 2 * x_stride)), a2)
        a3 = simd.fma(w, simd.splat(simd.get_f32(at + 3 * x_stride)), a3)
        a4 = simd.fma(w, simd.splat(simd.get_f32(at + 4 * x_stride)), a4)
        a5 = simd.fma(w, simd.splat(simd.get_f32(at + 5 * x_stride)), a5)
        a6 = simd.fma(w, simd.splat(simd.get_f32(at + 6 * x_stride)), a6)
        a7 = simd.fma(w, simd.splat(simd.get_f32(at + 7 * x_stride)), a7)
    simd.store_f32(out, a0)
    simd.store_f32(out + out_stride, a1)
    simd.store_f32(out + 2 * out_stride, a2)
    simd.store_f32(out + 3 * out_stride, a3)
    simd.store_f32(out + 4 * out_stride, a4)
    simd.store_f32(out + 5 * out_stride, a5)
    simd.store_f32(out + 6 * out_stride, a6)
    simd.store_f32(out + 7 * out_stride, a7)


@kernel
def row_of_floats(get, width, weight, blocks, index, out):
    """ROW for the same layout; `get` reads one of them as float32."""
    n_in = 32 * blocks
    base = weight + width * ((index >> 4) * n_in * 16 + (index & 15))
    for i in range(n_in):
        simd.set_f32(out + 4 * i, get(base + 16 * width * i))
