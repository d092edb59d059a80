"""Products that read only a part of a matrix: some of its rows, or the weights of some inputs.

Two layouts, made from a packed matrix where a level of sparsity asks for them
(engine/sparse_formats):

by rows     one row after another, `stride` bytes each. A row of nibbles is runs of 64 bytes, a run
            being four blocks of 32 columns (byte i of a block: column i low, 16 + i high), then a
            float16 scale a block, then, if there are any, an offset a block. It meets the row of
            activations in a form of its own, see `spread`.
by inputs   for each block of 32 inputs: the scales (float16, one an output), the offsets, if there
            are any, and then the 32 inputs, `stride` bytes each. An input is tiles of 32 outputs;
            a tile of nibbles has output i low and 16 + i high in byte i.

Both keep the numbers of the packed matrix: a product with all rows or inputs differs from the dense
one in the order of its sums only. The activations by inputs are float32. A third, without stored
scales, is for inputs of which few are active, see add_inputs.
"""

from __future__ import annotations

import numpy as np
from numba import types
from numba.extending import intrinsic

from engine.kernels import dot, pieces, simd
from engine.kernels.activations import BLOCK_BYTES, FINE, SCALE, VALUE_SUM, join
from engine.kernels.address import caller
from engine.kernels.compiler import kernel

F = np.float32
_address = _count = types.int64

# rows(weight, stride, blocks, rows, n, x, out): out[k] = row rows[k] times x, for k < n
#   blocks  of 32 columns        rows  int32 (n,)        out  float32 (n,), overwritten
#   x       float32 (32 blocks,), or what `spread` makes of it, as the layout wants
ROWS = types.void(_address, _count, _count, _address, _count, _address, _address)

# inputs(weight, stride, tiles, blocks, active, first, last, out)
#   out[32 first : 32 last] = the active inputs' weights, times their values
#   tiles   of 32 outputs        active  address of four addresses, see active_inputs
INPUTS = types.void(*[_address] * 8)

RUN_BYTES = 448  # of `spread`, four blocks: see there
_RUN_FINE, _RUN_SCALE, _RUN_SUM, _RUN_EIGHTS = 128, 256, 320, 384
ACTIVE_BYTES = 8 + 128 + 128 + 4  # a block of inputs: see active_inputs
_BLOCKS_AHEAD = 4
AHEAD = 4096  # bytes


@intrinsic
def call_rows(typing, kernel, weight, stride, blocks, rows, n, x, out):
    """ROWS by the kernel at an address."""
    return caller(ROWS)


@intrinsic
def call_inputs(typing, kernel, weight, stride, tiles, blocks, active, first, last, out):
    """INPUTS by the kernel at an address."""
    return caller(INPUTS)


@kernel
def spread(x, blocks, out):
    """int8 blocks of activations at `x` to the form that rows of nibbles are multiplied with.

    A run of four blocks, a lane being eight columns of a block: 64 bytes q of the columns below 16,
    64 of those above, both again of r, then float32 a lane: the scale, the sum of the block's
    values (in the first of its lanes, 0 in the others), and -8 times that.
    """
    for b in range(blocks):
        source, lanes = x + BLOCK_BYTES * b, 16 * (b & 3)
        run = out + RUN_BYTES * (b >> 2) + lanes
        pieces.copy_16(source, run)
        pieces.copy_16(source + 16, run + 64)
        pieces.copy_16(source + FINE, run + _RUN_FINE)
        pieces.copy_16(source + FINE + 16, run + _RUN_FINE + 64)
        scale, total = simd.get_f32(source + SCALE), simd.get_f32(source + VALUE_SUM)
        for lane in range(0, 16, 4):
            simd.set_f32(run + _RUN_SCALE + lane, scale)
        simd.set_f32(run + _RUN_SUM, total)
        simd.set_f32(run + _RUN_EIGHTS, F(-8) * total)


# ---- by rows ------------------------------------------------------------------------------------


@kernel
def ask_first(weight, stride, rows, n):
    """Ask for the first of n listed rows; how many rows ahead of the product to ask from then on.

    Rows lie anywhere, where no processor looks ahead by itself. One row asked for with each that is
    computed, AHEAD bytes before it is needed, reads two to three times what asking for many at once
    does: only so many lines can be on their way.
    """
    ahead = max(AHEAD // stride, 1)
    for k in range(min(ahead, n)):
        ask(weight, stride, rows, k, n)
    return ahead


@kernel
def ask(weight, stride, rows, k, n):
    """Ask for row number k of the list, if there is one."""
    if k < n:
        row = weight + stride * simd.get_i32(rows + 4 * k)
        for line in range(0, stride, 64):
            simd.prefetch(row + line)


@kernel
def nibble_rows(offsets, weight, stride, blocks, rows, n, x, out):
    """ROWS of nibbles; offsets: whether blocks have them, else q stands for q - 8."""
    runs = (blocks + 3) // 4
    ahead = ask_first(weight, stride, rows, n)
    for k in range(n):
        ask(weight, stride, rows, k + ahead, n)
        row = weight + stride * simd.get_i32(rows + 4 * k)
        scales = row + 64 * runs
        total = simd.zero_f32()
        for j in range(runs):
            product = _run(simd.load_u8(row + 64 * j), x + RUN_BYTES * j)
            if offsets:
                offset = pieces.load_f16_by_four(scales + 8 * (runs + j))
                total = simd.fma(offset, simd.load_f32(x + RUN_BYTES * j + _RUN_SUM), total)
            else:
                product = simd.add(product, simd.load_f32(x + RUN_BYTES * j + _RUN_EIGHTS))
            total = simd.fma(product, pieces.load_f16_by_four(scales + 8 * j), total)
        simd.set_f32(out + 4 * k, simd.sum_lanes(total))


@kernel
def _run(q, x):
    """A run of nibbles times the activations' run at `x`: F32x16, not yet scaled by weights."""
    low, high = dot.low_nibbles(q), dot.high_nibbles(q)
    coarse = fine = simd.zero_i32()
    coarse = dot.dot_nibbles(coarse, low, simd.load_u8(x))
    coarse = dot.dot_nibbles(coarse, high, simd.load_u8(x + 64))
    fine = dot.dot_nibbles(fine, low, simd.load_u8(x + _RUN_FINE))
    fine = dot.dot_nibbles(fine, high, simd.load_u8(x + _RUN_FINE + 64))
    none = simd.zero_i32()
    product = join(dot.nibble_sums(coarse, none), dot.nibble_sums(fine, none))
    return simd.mul(product, simd.load_f32(x + _RUN_SCALE))


@kernel
def value_rows(load, width, scaled, weight, stride, blocks, rows, n, x, out):
    """ROWS of numbers of `width` bytes that `load` reads 16 of; scaled: and a float16 a block."""
    ahead = ask_first(weight, stride, rows, n)
    for k in range(n):
        ask(weight, stride, rows, k + ahead, n)
        row = weight + stride * simd.get_i32(rows + 4 * k)
        total = simd.zero_f32()
        for b in range(blocks):
            at = row + 32 * width * b
            product = simd.mul(load(at), simd.load_f32(x + 128 * b))
            product = simd.fma(load(at + 16 * width), simd.load_f32(x + 128 * b + 64), product)
            if scaled:
                scale = simd.get_f16(row + 32 * width * blocks + 2 * b)
                total = simd.fma(product, simd.splat(scale), total)
            else:
                total = simd.add(total, product)
        simd.set_f32(out + 4 * k, simd.sum_lanes(total))


# ---- by inputs ----------------------------------------------------------------------------------


@kernel
def active_inputs(active, blocks):
    """(counts, inputs, values, sums): addresses of int64 (blocks,), int32 (blocks, 32) numbers of
    inputs within their block, float32 (blocks, 32) what they are multiplied with, and float32
    (blocks,) sums of those; of a block, the first counts[b] count."""
    counts = active
    inputs = counts + 8 * blocks
    values = inputs + 128 * blocks
    return counts, inputs, values, values + 128 * blocks


@kernel
def skip_inputs(low, high, step, scaled, offsets, shift, weight, stride, tiles, blocks, active,
                first, last, out):  # fmt: skip
    """INPUTS by the functions that read the two halves of a tile of `step` bytes.

    scaled   whether an output has a scale a block      offsets   … and an offset
    shift    what is added to each number that is read
    Sums go over the inputs in their order, whichever thread computes an output.
    """
    counts, inputs, values, sums = active_inputs(active, blocks)
    scale_bytes = 64 * tiles
    header = scale_bytes * (scaled + offsets)
    block_bytes = header + 32 * stride
    for at in range(out + 128 * first, out + 128 * last, 64):
        simd.store_f32(at, simd.zero_f32())
    for b in range(blocks):
        n = simd.get_i64(counts + 8 * b)
        if n == 0:
            continue
        block = weight + block_bytes * b
        coming = min(b + _BLOCKS_AHEAD, blocks - 1)
        n_coming = simd.get_i64(counts + 8 * coming)
        total = simd.splat(simd.get_f32(sums + 4 * b))
        start = simd.mul(simd.splat(F(shift)), total)
        for tile in range(first, last):
            if tile == first or (step * tile) & 63 < step:  # a line of each input begins
                for j in range(n_coming):
                    at = stride * simd.get_i32(inputs + 128 * coming + 4 * j) + step * tile
                    for line in range(0, step, 64):
                        simd.prefetch(weight + block_bytes * coming + header + at + line)
            if scaled:
                simd.prefetch(weight + block_bytes * coming + 64 * tile)
            a, c = start, start
            for j in range(n):
                at = block + header + stride * simd.get_i32(inputs + 128 * b + 4 * j) + step * tile
                value = simd.splat(simd.get_f32(values + 128 * b + 4 * j))
                a, c = simd.fma(low(at), value, a), simd.fma(high(at), value, c)
            to, scale = out + 128 * tile, block + 64 * tile
            old_a, old_c = simd.load_f32(to), simd.load_f32(to + 64)
            if scaled:
                a = simd.fma(a, simd.load_f16(scale), old_a)
                c = simd.fma(c, simd.load_f16(scale + 32), old_c)
            else:
                a, c = simd.add(a, old_a), simd.add(c, old_c)
            if offsets:
                a = simd.fma(simd.load_f16(scale + scale_bytes), total, a)
                c = simd.fma(simd.load_f16(scale + scale_bytes + 32), total, c)
            simd.store_f32(to, a)
            simd.store_f32(to + 64, c)


@kernel
def add_inputs(load, weight, stride, blocks, active, first, last, out):
    """INPUTS of columns of bytes whose scales are in the active values already (see
    engine/sparse_formats/int8); `load` reads 16 outputs.

    A block is 32 inputs of `stride` bytes, then float32 scales, which are for who makes the list.
    Inputs go by pairs, each from its first output to its last; lines are asked for as in ask_first,
    by a second walk through the list. A place is 32 times a block and a number in its list.
    """
    counts, inputs, values, _ = active_inputs(active, blocks)
    places, start, end = 32 * blocks, 32 * first, 32 * last
    for at in range(out + 4 * start, out + 4 * end, 64):
        simd.store_f32(at, simd.zero_f32())
    place = coming = _next_input(counts, places, 0)
    for _ in range(max(AHEAD // max(end - start, 1), 1)):
        if coming < places:
            column = _column(weight, stride, inputs, coming, places, weight)
            for line in range(start, end, 64):
                simd.prefetch(column + line)
            coming = _next_input(counts, places, coming + 1)
    while place < places:
        other = _next_input(counts, places, place + 1)
        p = _column(weight, stride, inputs, place, places, weight)
        q = _column(weight, stride, inputs, other, places, p)
        v = simd.splat(simd.get_f32(values + 4 * place))
        w = simd.splat(simd.get_f32(values + 4 * other) if other < places else F(0))
        coming_p = _column(weight, stride, inputs, coming, places, p)
        coming = _next_input(counts, places, coming + 1)
        coming_q = _column(weight, stride, inputs, coming, places, p)
        coming = _next_input(counts, places, coming + 1)
        for line in range(start, end, 64):
            simd.prefetch(coming_p + line)
            simd.prefetch(coming_q + line)
            for half in range(line, min(line + 64, end), 32):
                to = out + 4 * half
                a, c = simd.load_f32(to), simd.load_f32(to + 64)
                a, c = simd.fma(load(p + half), v, a), simd.fma(load(p + half + 16), v, c)
                a, c = simd.fma(load(q + half), w, a), simd.fma(load(q + half + 16), w, c)
                simd.store_f32(to, a)
                simd.store_f32(to + 64, c)
        place = _next_input(counts, places, other + 1)


@kernel
def _next_input(counts, places, place):
    """The first place from `place` on where an active input is; `places` or more for none."""
    while place < places and (place & 31) >= simd.get_i64(counts + 8 * (place >> 5)):
        place = (place | 31) + 1
    return place


@kernel
def _column(weight, stride, inputs, place, places, otherwise):
    """The address of an active input's numbers; `otherwise` behind the last place."""
    if place >= places:
        return otherwise
    block = weight + (32 * stride + 128) * (place >> 5)
    return block + stride * simd.get_i32(inputs + 4 * place)
