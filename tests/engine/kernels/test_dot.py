"""Products of bytes and int16: every instruction set against the same NumPy, to the last bit."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from llvmlite import binding, ir
from numba import njit
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from engine.kernels import cpu, dot, simd
from engine.kernels.vectors import I32x16, U8x64, broadcast, i32, i64, load, operation
from tests.engine.kernels.instruction_sets import runnable

X86, ARM = "x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"
N_VECTORS = 40
Bytes = NDArray[np.uint8] | NDArray[np.int8]


def products(unsigned: Bytes, signed: Bytes) -> NDArray[np.int32]:
    """The twin: (n, 64) uint8 and int8 -> (n, 16) int32."""
    each = unsigned.astype(np.int32) * signed.astype(np.int32)
    return each.reshape(-1, 16, 4).sum(axis=2, dtype=np.int32)


def operands(rng: np.random.Generator, largest: int) -> tuple[Bytes, Bytes]:
    """Bytes, among them all extremes beside each other."""
    unsigned = rng.integers(0, largest + 1, (N_VECTORS, 64), np.uint8)
    signed = rng.integers(-128, 128, (N_VECTORS, 64), np.int8)
    unsigned[:8], signed[0:8:2], signed[1:8:2] = largest, -128, 127
    return unsigned, signed


def kernels(name: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """dot4 and the pair for nibbles, compiled for an instruction set."""
    emit = dot.PRODUCTS[name]

    @operation(I32x16, I32x16, U8x64, U8x64)
    def dot4(builder, *values):  # type: ignore[no-untyped-def]
        return emit.dot4(builder, *values)

    @operation(I32x16, I32x16, U8x64, U8x64)
    def dot_nibbles(builder, *values):  # type: ignore[no-untyped-def]
        return emit.dot_nibbles(builder, *values)

    @operation(I32x16, I32x16, I32x16)
    def nibble_sums(builder, *values):  # type: ignore[no-untyped-def]
        return emit.nibble_sums(builder, *values)

    # sums stay far below 2**24, where float32 is exact
    @njit
    def one_by_one(start, unsigned, signed, out):  # type: ignore[no-untyped-def]
        u, s, to = simd.address_of(unsigned), simd.address_of(signed), simd.address_of(out)
        for at in range(0, unsigned.size, 64):
            total = dot4(simd.splat_i32(start), simd.load_u8(u + at), simd.load_u8(s + at))
            simd.store_f32(to + at, simd.to_f32(total))

    @njit
    def by_eight(nibbles, signed, out):  # type: ignore[no-untyped-def]
        u, s, to = simd.address_of(nibbles), simd.address_of(signed), simd.address_of(out)
        for at in range(0, nibbles.size, 512):
            a = b = simd.zero_i32()
            for i in range(at, at + 256, 64):
                a = dot_nibbles(a, simd.load_u8(u + i), simd.load_u8(s + i))
                b = dot_nibbles(b, simd.load_u8(u + i + 256), simd.load_u8(s + i + 256))
            simd.store_f32(to + at // 8, simd.to_f32(nibble_sums(a, b)))

    return one_by_one, by_eight


@pytest.mark.parametrize("name", runnable())
def test_every_instruction_set_gives_the_same_sums(rng: np.random.Generator, name: str) -> None:
    dot4, nibbles = kernels(name)
    unsigned, signed = operands(rng, 255)
    out = np.zeros((N_VECTORS, 16), np.float32)
    dot4(np.int32(-70_000), unsigned, signed, out)
    assert_array_equal(out, products(unsigned, signed) - 70_000)

    unsigned, signed = operands(rng, 15)
    out = np.zeros((N_VECTORS // 8, 16), np.float32)
    nibbles(unsigned, signed, out)
    assert_array_equal(out, products(unsigned, signed).reshape(-1, 8, 16).sum(axis=1))


@pytest.mark.parametrize("name", runnable())
def test_every_instruction_set_multiplies_pairs(rng: np.random.Generator, name: str) -> None:
    @operation(I32x16, I32x16, I32x16, I32x16)
    def dot2(builder, *values):  # type: ignore[no-untyped-def]
        return dot.PRODUCTS[name].dot2(builder, *values)

    @njit
    def one_by_one(start, a, b, out):  # type: ignore[no-untyped-def]
        at_a, at_b, to = simd.address_of(a), simd.address_of(b), simd.address_of(out)
        for at in range(0, 2 * a.size, 64):
            total = simd.splat_i32(start)
            total = dot2(total, simd.load_i32(at_a + at), simd.load_i32(at_b + at))
            simd.store_i32(to + at, total)

    a, b = (rng.integers(-32_768, 32_768, (N_VECTORS, 32)).astype(np.int16) for _ in range(2))
    a[:4], b[0:4:2], b[1:4:2] = -32_768, 32_767, -32_767  # the ends: a sum of two is 2**31 - 2**16
    out = np.zeros((N_VECTORS, 16), np.int32)
    one_by_one(np.int32(-70), a, b, out)
    expected = (a.astype(np.int64) * b).reshape(-1, 16, 2).sum(axis=2) - 70
    assert_array_equal(out, expected.astype(np.int32))


@njit
def chosen(unsigned, signed, out):  # type: ignore[no-untyped-def]
    u, s, to = simd.address_of(unsigned), simd.address_of(signed), simd.address_of(out)
    for at in range(0, unsigned.size, 64):
        a, b = simd.load_u8(u + at), simd.load_u8(s + at)
        total = dot.dot4(simd.zero_i32(), a, b)
        simd.store_f32(to + 2 * at, simd.to_f32(total))
        total = dot.nibble_sums(dot.dot_nibbles(simd.zero_i32(), a, b), simd.zero_i32())
        simd.store_f32(to + 2 * at + 64, simd.to_f32(total))


def test_the_operations_of_this_cpu_give_the_same_sums(rng: np.random.Generator) -> None:
    unsigned, signed = operands(rng, 15)
    out = np.zeros((N_VECTORS, 2, 16), np.float32)
    chosen(unsigned, signed, out)
    expected = products(unsigned, signed)
    assert_array_equal(out, np.stack([expected, expected], axis=1))


def test_every_instruction_set_has_its_products() -> None:
    assert set(dot.PRODUCTS) == set(cpu.INSTRUCTIONS)


def assembly(emit: Callable[..., Any], triple: str, name: str) -> str:
    """What LLVM makes of total + bytes in memory times four bytes in memory."""
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    module = ir.Module()
    signature = ir.FunctionType(I32x16.llvm, [I32x16.llvm, i64, i64])
    function = ir.Function(module, signature, "f")
    builder = ir.IRBuilder(function.append_basic_block())
    total, weights, activations = function.args
    four = broadcast(builder, I32x16.llvm, load(builder, activations, i32))
    signed = builder.bitcast(four, U8x64.llvm)
    builder.ret(emit(builder, total, load(builder, weights, U8x64.llvm), signed))
    parsed = binding.parse_assembly(str(module))
    parsed.verify()
    target = binding.Target.from_triple(triple)
    return target.create_target_machine(cpu=name).emit_assembly(parsed)


@pytest.mark.parametrize(
    ("triple", "name", "dot4", "nibbles"),
    [
        (X86, "cascadelake", "vpdpbusd.*%zmm", "vpdpbusd.*%zmm"),
        (X86, "alderlake", "{vex}\tvpdpbusd.*%ymm", "{vex}\tvpdpbusd.*%ymm"),
        (X86, "skylake-avx512", "vpmaddwd.*%zmm", "vpmaddubsw.*%zmm"),
        (X86, "haswell", "vpmaddwd.*%ymm", "vpmaddubsw.*%ymm"),
        (X86, "nehalem", "pmaddwd.*%xmm", "pmaddubsw.*%xmm"),
        (X86, "nocona", "pmaddwd.*%xmm", "pmaddwd.*%xmm"),
        (ARM, "neoverse-v1", "usdot\tv", "usdot\tv"),
        (ARM, "neoverse-n1", "\tsdot\tv", "\tsdot\tv"),
        (ARM, "cortex-a72", "\tmul\tv", "\tmla\tv"),
    ],
)
def test_a_cpu_gets_its_instruction(triple: str, name: str, dot4: str, nibbles: str) -> None:
    try:
        emit = dot.PRODUCTS[cpu.examine(triple, name, "").instructions]
    except RuntimeError:
        pytest.skip("this LLVM was built without this processor")
    assert re.search(dot4, assembly(emit.dot4, triple, name))
    assert re.search(nibbles, assembly(emit.dot_nibbles, triple, name))
