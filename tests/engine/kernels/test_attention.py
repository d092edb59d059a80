"""Attention of one head against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from engine.kernels import attention


def attend(q, keys, values, slots, positions, slope, position):
    """The twin: a softmax over the slots given."""
    scores = keys[slots] @ q * 0.125 + slope * (positions - position)
    weights = np.exp(scores - scores.max())
    return weights / weights.sum() @ values[slots]


@pytest.mark.parametrize("width", [16, 48, 64, 128])
@pytest.mark.parametrize(
    ("first", "stop", "n_path"), [(0, 1, 0), (0, 37, 0), (5, 37, 0), (0, 20, 3), (20, 20, 6)]
)
@pytest.mark.parametrize("slope", [0.0, 0.25])
def test_attend_matches_numpy(
    rng: np.random.Generator, width: int, first: int, stop: int, n_path: int, slope: float
) -> None:
    keys, values = rng.standard_normal((2, 64, width)).astype(np.float32)
    q = rng.standard_normal(width).astype(np.float32) * 2
    path = rng.permutation(np.arange(40, 64))[:n_path].astype(np.int64)
    slots = np.concatenate([np.arange(first, stop), path])
    positions = np.arange(first, first + len(slots))
    position = positions[-1]
    scores, out = np.full(128, np.nan, np.float32), np.empty(width, np.float32)
    attention.attend(
        q.ctypes.data, keys.ctypes.data, values.ctypes.data, width, first, stop,
        path.ctypes.data, n_path, np.float32(slope), position, np.float32(0.125),
        scores.ctypes.data, out.ctypes.data,
    )  # fmt: skip
    expected = attend(q, keys, values, slots, positions, slope, position)
    assert_allclose(out, expected, rtol=1e-4, atol=1e-5)


def test_a_huge_score_neither_overflows_nor_hides_the_rest(rng: np.random.Generator) -> None:
    keys, values = rng.standard_normal((2, 8, 16)).astype(np.float32)
    q = np.full(16, 1000.0, np.float32)
    scores, out = np.empty(32, np.float32), np.empty(16, np.float32)
    attention.attend(
        q.ctypes.data, keys.ctypes.data, values.ctypes.data, 16, 0, 8, 0, 0,
        np.float32(0), 7, np.float32(1), scores.ctypes.data, out.ctypes.data,
    )  # fmt: skip
    assert_allclose(out, values[(keys @ q).argmax()], rtol=1e-4)


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("rotary_dim", [8, 24])
def test_rotate_turns_pairs(rng: np.random.Generator, interleaved: int, rotary_dim: int) -> None:
    head = rng.standard_normal(24).astype(np.float32)
    angles = rng.standard_normal(rotary_dim // 2)
    cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    rotated = head[:rotary_dim].astype(np.float64)
    pairs = rotated.reshape(-1, 2) if interleaved else rotated.reshape(2, -1).T
    turned = (pairs[:, 0] + 1j * pairs[:, 1]) * np.exp(1j * angles)
    expected = head.copy()
    both = np.stack([turned.real, turned.imag])
    expected[:rotary_dim] = both.T.ravel() if interleaved else both.ravel()
    attention.rotate(head.ctypes.data, cos.ctypes.data, sin.ctypes.data, rotary_dim, interleaved)
    assert_allclose(head, expected, atol=1e-6)
