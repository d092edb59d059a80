"""Attention of one head against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from engine.kernels import attention
from engine.kernels.attention import View


def attend(q, keys, values, slots, positions, slope, position):
    """The twin: a softmax over the slots given."""
    scores = keys[slots] @ q * 0.125 + slope * (positions - position)
    weights = np.exp(scores - scores.max())
    return weights / weights.sum() @ values[slots]


def run(q, keys, values, view, slopes=None, n_tokens=1):
    """The kernel, on keys (slots, width) in rows; q (n_tokens n_heads, width)."""
    n_heads, width = len(q) // n_tokens, q.shape[1]
    blocked = np.ascontiguousarray(keys.reshape(-1, 16, width).swapaxes(1, 2))
    scores, out = np.full((len(q), 128), np.nan, np.float32), np.empty_like(q)
    view = view._replace(keys=blocked.ctypes.data, values=values.ctypes.data, width=width)
    slopes_at = 0 if slopes is None else slopes.ctypes.data
    attention.attend(
        q.ctypes.data, 4 * width * n_heads, n_tokens, n_heads, view, slopes_at,
        scores.ctypes.data, scores.strides[0], out.ctypes.data,
    )  # fmt: skip
    return out


@pytest.mark.parametrize("width", [16, 48, 64, 128])
@pytest.mark.parametrize(
    ("first", "stop", "n_path"), [(0, 1, 0), (0, 37, 0), (5, 37, 0), (0, 20, 3), (20, 20, 6)]
)
@pytest.mark.parametrize("n_heads", [1, 3])
@pytest.mark.parametrize("has_slopes", [False, True])
def test_attend_matches_numpy(
    rng: np.random.Generator, width: int, first: int, stop: int, n_path: int, n_heads: int,
    has_slopes: bool,
) -> None:  # fmt: skip
    keys, values = rng.standard_normal((2, 64, width)).astype(np.float32)
    q = rng.standard_normal((n_heads, width)).astype(np.float32) * 2
    slopes = np.array([0.25, 0.5, 0.1], np.float32)[:n_heads] * has_slopes
    path = rng.permutation(np.arange(40, 64))[:n_path].astype(np.int64)
    slots = np.concatenate([np.arange(first, stop), path])
    positions = np.arange(first, first + len(slots))
    view = View(0, 0, 0, len(slots), stop, path.ctypes.data, n_path, int(positions[-1]), 0.125)
    out = run(q, keys, values, view, slopes if has_slopes else None)
    for head in range(n_heads):
        expected = attend(q[head], keys, values, slots, positions, slopes[head], positions[-1])
        assert_allclose(out[head], expected, rtol=1e-4, atol=1e-5)


def test_a_path_counts_like_a_run_to_the_bit(rng: np.random.Generator) -> None:
    keys, values = rng.standard_normal((2, 64, 64)).astype(np.float32)
    q = rng.standard_normal((3, 64)).astype(np.float32)
    path = np.array([50, 41, 63, 44, 60, 59, 47], np.int64)
    whole = np.concatenate([np.arange(21), path])
    in_a_row = np.zeros((2, 64, 64), np.float32)
    in_a_row[0, :28], in_a_row[1, :28] = keys[whole], values[whole]
    for window in (25, 5, 100):
        branched = run(q, keys, values, View(0, 0, 0, window, 21, path.ctypes.data, 7, 27, 0.125))
        straight = run(q, *in_a_row, View(0, 0, 0, window, 28, 0, 0, 27, 0.125))
        assert_array_equal(branched, straight)


@pytest.mark.parametrize("window", [7, 1000])
def test_a_run_of_tokens_gives_the_bits_of_each_alone(
    rng: np.random.Generator, window: int
) -> None:
    keys, values = rng.standard_normal((2, 96, 48)).astype(np.float32)
    q = rng.standard_normal((15, 48)).astype(np.float32)
    view = View(0, 0, 0, window, 70, 0, 0, 69, 0.125)
    together = run(q, keys, values, view, n_tokens=5)
    for t in range(5):
        alone = run(q[3 * t : 3 * t + 3], keys, values, view._replace(stop=70 + t, position=69 + t))
        assert_array_equal(together[3 * t : 3 * t + 3], alone)


def test_a_huge_score_neither_overflows_nor_hides_the_rest(rng: np.random.Generator) -> None:
    keys, values = rng.standard_normal((2, 16, 16)).astype(np.float32)
    q = np.full((1, 16), 1000.0, np.float32)
    out = run(q, keys, values, View(0, 0, 0, 8, 8, 0, 0, 7, 1.0))
    assert_allclose(out[0], values[(keys[:8] @ q[0]).argmax()], rtol=1e-4)


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
