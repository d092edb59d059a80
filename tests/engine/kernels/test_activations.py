"""Norms, quantisation and non-linearities against one line of NumPy each."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numba import njit
from numpy.testing import assert_allclose

from engine.kernels import activations, simd
from engine.kernels.activations import BLOCK_BYTES


def gelu(x: np.ndarray) -> np.ndarray:
    from math import erf

    return x * (1 + np.vectorize(erf)(x / np.sqrt(2))) / 2


TWINS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    activations.SILU: lambda x: x / (1 + np.exp(-x)),
    activations.GELU: gelu,
    activations.GELU_TANH: lambda x: (
        x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2
    ),
    activations.RELU: lambda x: np.maximum(x, 0),
}


@njit
def exponentials(x, out):
    for i in range(0, x.size, 16):
        value = simd.load_f32(simd.address_of(x) + 4 * i)
        simd.store_f32(simd.address_of(out) + 4 * i, activations.exponential(value))


def test_exponential_is_exact_to_two_units_and_clamped() -> None:
    x = np.linspace(-87, 88, 16 * 1000, dtype=np.float32)
    out = np.empty_like(x)
    exponentials(x, out)
    assert_allclose(out, np.exp(x.astype(np.float64)), rtol=3e-7)
    edges = np.array([-1e30, -200, 200, 1e30] * 4, np.float32)
    exponentials(edges, out[:16])
    assert_allclose(out[:4], np.exp([-87.0, -87, 88, 88]), rtol=1e-5)


@pytest.mark.parametrize("kind", TWINS)
@pytest.mark.parametrize("has_up", [False, True])
@pytest.mark.parametrize("has_bias", [False, True])
def test_feed_forward_gate_matches_numpy(
    rng: np.random.Generator, kind: int, has_up: bool, has_bias: bool
) -> None:
    gate, up, gate_bias, up_bias = rng.standard_normal((4, 96)).astype(np.float32) * 3
    g = (gate + gate_bias * has_bias).astype(np.float64)
    expected = TWINS[kind](g) * ((up + up_bias * has_bias) if has_up else 1)
    untouched = gate[:32].copy()
    activations.feed_forward_gate(
        gate.ctypes.data,
        up.ctypes.data if has_up else 0,
        gate_bias.ctypes.data if has_bias else 0,
        up_bias.ctypes.data if has_bias else 0,
        kind, 32, 96,
    )  # fmt: skip
    assert_allclose(gate[32:], expected[32:], rtol=1e-5, atol=2e-6)
    assert (gate[:32] == untouched).all()


@pytest.mark.parametrize("n", [32, 72, 576])
def test_rms_norm_matches_numpy(rng: np.random.Generator, n: int) -> None:
    n_padded = -(-n // 32) * 32
    x, weight, out = np.zeros((3, n_padded), np.float32)
    x[:n], weight[:n] = rng.standard_normal((2, n)) * 5
    activations.rms_norm(x.ctypes.data, weight.ctypes.data, 1e-5, n, n_padded, out.ctypes.data)
    expected = x[:n] / np.sqrt((x[:n].astype(np.float64) ** 2).mean() + 1e-5) * weight[:n]
    assert_allclose(out[:n], expected, rtol=1e-5, atol=1e-6)
    assert not out[n:].any()


@pytest.mark.parametrize("n", [32, 72, 576])
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_layer_norm_matches_numpy(
    rng: np.random.Generator, n: int, has_bias: bool, offset: float
) -> None:
    n_padded = -(-n // 32) * 32
    x, weight, bias, out = np.zeros((4, n_padded), np.float32)
    x[:n], weight[:n], bias[:n] = rng.standard_normal((3, n))
    x[:n] += offset
    address = bias.ctypes.data if has_bias else 0
    activations.layer_norm(
        x.ctypes.data, weight.ctypes.data, address, 1e-5, n, n_padded, out.ctypes.data
    )
    values = x[:n].astype(np.float64)
    expected = (values - values.mean()) / np.sqrt(values.var() + 1e-5) * weight[:n]
    assert_allclose(out[:n], expected + bias[:n] * has_bias, rtol=1e-4, atol=2e-5)
    assert not out[n:].any()


def decoded(block: np.ndarray) -> np.ndarray:
    """The values that an int8 activation block stands for."""
    q, r = block[:64].view(np.int8).reshape(2, 32).astype(np.float64)
    return (q + r / 254) * block[activations.SCALE :][:4].view(np.float32)[0]


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
def test_quantize_keeps_15_bits_and_the_sums(rng: np.random.Generator, scale: float) -> None:
    x = (rng.standard_normal(64) * scale).astype(np.float32)
    out = np.zeros((2, BLOCK_BYTES), np.uint8)
    activations.quantize(x.ctypes.data, 2, out.ctypes.data)
    for values, block in zip(x.reshape(2, 32), out, strict=True):
        assert_allclose(decoded(block), values, atol=np.abs(values).max() / 127 / 254 * 0.51)
        q, r = block[:64].view(np.int8).reshape(2, 32).astype(int)
        assert block[activations.SUM :][:4].view(np.int32)[0] == q.sum()
        assert block[activations.FINE_SUM :][:4].view(np.int32)[0] == r.sum()
        total = block[activations.VALUE_SUM :][:4].view(np.float32)[0]
        assert_allclose(total, decoded(block).sum(), rtol=1e-5, atol=1e-6 * scale)


def test_an_outlier_leaves_its_neighbours_their_value() -> None:
    x = np.full(32, 0.01, np.float32)
    x[7] = 100.0
    out = np.zeros(BLOCK_BYTES, np.uint8)
    activations.quantize(x.ctypes.data, 1, out.ctypes.data)
    assert_allclose(decoded(out), x, atol=100 / 127 / 254 * 0.51)


def test_a_block_of_zeros_is_zero() -> None:
    out = np.full(BLOCK_BYTES, 255, np.uint8)
    activations.quantize(np.zeros(32, np.float32).ctypes.data, 1, out.ctypes.data)
    assert not out.any()
