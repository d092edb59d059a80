"""float16 against NumPy's own conversions, with the CPU's instructions and without."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from llvmlite import ir
from numba import njit, types
from numpy.testing import assert_array_equal

from engine.kernels import cpu, float16, simd
from engine.kernels.cpu import Cpu
from engine.kernels.vectors import F32x16, i16, load, operation, store

ALL = np.arange(2**16, dtype=np.uint16)


@pytest.fixture(params=["instructions", "plain"])
def kernels(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """(widen all, narrow all) arrays, compiled for a CPU with or without conversions."""
    if request.param == "plain":
        monkeypatch.setattr(cpu, "cpu", lambda: Cpu(cpu.GENERIC, fma=False, float16=False))
    elif not cpu.cpu().float16:
        pytest.skip("this CPU has no instructions for float16")

    @operation(types.void, types.int64, F32x16)
    def store_f16(builder, address, values):  # type: ignore[no-untyped-def]
        store(builder, address, float16.narrow(builder, values))

    @operation(F32x16, types.int64)
    def load_f16(builder, address):  # type: ignore[no-untyped-def]
        return float16.widen(builder, load(builder, address, ir.VectorType(i16, 16)))

    @njit
    def widen(words, out):  # type: ignore[no-untyped-def]
        for i in range(0, words.size, 16):
            value = load_f16(simd.address_of(words) + 2 * i)
            simd.store_f32(simd.address_of(out) + 4 * i, value)

    @njit
    def narrow(values, out):  # type: ignore[no-untyped-def]
        for i in range(0, values.size, 16):
            store_f16(simd.address_of(out) + 2 * i, simd.load_f32(simd.address_of(values) + 4 * i))

    return widen, narrow


def test_every_float16_widens_as_in_numpy(kernels: tuple[Callable[..., Any], ...]) -> None:
    out = np.empty(ALL.size, np.float32)
    kernels[0](ALL, out)
    with np.errstate(invalid="ignore"):
        expected = ALL.view(np.float16).astype(np.float32)
    assert_array_equal(out, expected)
    assert_array_equal(np.signbit(out), np.signbit(expected))


def test_float32_is_rounded_as_in_numpy(
    rng: np.random.Generator, kernels: tuple[Callable[..., Any], ...]
) -> None:
    exact = ALL[np.isfinite(ALL.view(np.float16))].view(np.float16).astype(np.float32)
    # between two neighbours lies a tie, and beside it what is rounded up or down
    ties = (exact[:-1] + exact[1:]) / 2
    random = rng.integers(0, 2**32, 100_000, np.uint32).view(np.float32)
    edges = np.array([np.inf, -np.inf, np.nan, 65519.9, 65520, -65520, 1e-45, -1e-45], np.float32)
    values = np.concatenate(
        [exact, ties, np.nextafter(ties, np.inf), np.nextafter(ties, -np.inf), random, edges]
    )
    values = np.resize(values, -(-values.size // 16) * 16)
    out = np.empty(values.size, np.float16)
    kernels[1](values, out.view(np.uint16))
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        expected = values.astype(np.float16)
    assert_array_equal(out, expected)
    assert_array_equal(np.signbit(out), np.signbit(expected))


def test_one_number_widens_like_many() -> None:
    @njit
    def one(words):  # type: ignore[no-untyped-def]
        return simd.get_f16(simd.address_of(words))

    for value in (0.0, -1.5, 6e-8, 65504.0, np.inf):
        assert one(np.array([value], np.float16).view(np.uint16)) == np.float16(value)
