"""Attention against NumPy, in every format of the cache."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
from numba import njit
from numpy.testing import assert_allclose, assert_array_equal

from engine.cache import KVCache
from engine.kernels import rows, softmax
from engine.kernels.attention import SEGMENT, View, call_attend, call_store
from engine.kv_formats import KV_FORMATS, kv_format
from tests.engine.decoders import small_config

N_SLOTS = 3 * SEGMENT
WIDE = 1 << 40  # a window that sees everything
TOLERANCE = {"f32": 1e-5, "f16": 2e-3, "q8": 0.03}


@njit
def place(store_key: int, store_value: int, keys: Any, values: Any, cache: int, width: int) -> None:
    for slot in range(len(keys)):
        head_dim = keys.shape[1]
        call_store(store_key, keys[slot].ctypes.data, cache, width, slot, head_dim)
        call_store(store_value, values[slot].ctypes.data, cache, width, slot, head_dim)


@njit
def run(attend: int, view: Any, begin: int, end: int, partial: int, result: int) -> None:
    size = softmax.partial_bytes(view.width)
    for row in range(view.tokens * view.heads):
        softmax.clear(result + size * row, view.width)
    for segment in range(begin, end):
        call_attend(attend, view, segment, 0, partial)
        for row in range(view.tokens * view.heads):
            softmax.merge(partial + size * row, view.width, result + size * row)


class Seen(NamedTuple):
    """What tokens see: the run's length and, for each, a path; scale 0.125."""

    visible: np.ndarray
    paths: np.ndarray
    window: int = WIDE
    slopes: np.ndarray | None = None


class Cache:
    """One kv head with keys and values (slots, head_dim) in a format."""

    def __init__(self, format_name: str, keys: np.ndarray, values: np.ndarray) -> None:
        self.kv, head_dim = kv_format(format_name), keys.shape[1]
        config = small_config(n_layers=1, n_kv_heads=1, n_heads=1, head_dim=head_dim)
        self.cache = KVCache(config, format_name)
        self.cache.reserve(len(keys))
        self.width = -(-head_dim // 32) * 32
        place(
            self.kv.store_key.address, self.kv.store_value.address, np.ascontiguousarray(keys),
            np.ascontiguousarray(values), self.cache.data.ctypes.data, self.width,
        )  # fmt: skip

    def attend(self, q: np.ndarray, seen: Seen) -> np.ndarray:
        """q (tokens, heads, head_dim) -> the same shape."""
        tokens, heads, head_dim = q.shape
        padded = np.zeros((tokens, heads, self.width), np.float32)
        padded[..., :head_dim] = q
        n_path = seen.paths.shape[1]
        positions = seen.visible + n_path - 1
        scores = np.full((tokens * heads, SEGMENT), np.nan, np.float32)
        partial = np.full((tokens * heads, self.width + 16), np.nan, np.float32)
        result, out = np.empty_like(partial), np.empty_like(q)
        view = View(
            self.cache.data.ctypes.data, self.width, padded.ctypes.data, tokens, heads,
            positions.ctypes.data, seen.visible.ctypes.data, seen.paths.ctypes.data, n_path,
            seen.window, 0 if seen.slopes is None else seen.slopes.ctypes.data, 0.125, 0.0,
            scores.ctypes.data,
        )  # fmt: skip
        begin = max(0, int(positions[0]) + 1 - seen.window) // SEGMENT
        end = -(-(int(seen.visible[-1]) + n_path) // SEGMENT)
        run(self.kv.attend.address, view, begin, end, partial.ctypes.data, result.ctypes.data)
        for row in range(tokens * heads):
            softmax.finish(result[row].ctypes.data, self.width, head_dim,
                           out[row // heads, row % heads].ctypes.data)  # fmt: skip
        return out


def twin(q: np.ndarray, keys: np.ndarray, values: np.ndarray, seen: Seen) -> np.ndarray:
    """A softmax over what each token sees, in float64."""
    out = np.empty(q.shape)
    for t, head in np.ndindex(*q.shape[:2]):
        slots = np.concatenate([np.arange(seen.visible[t]), seen.paths[t]])
        slope = 0.0 if seen.slopes is None else seen.slopes[head]
        scores = keys[slots].astype(float) @ q[t, head] * 0.125
        scores += slope * (np.arange(len(slots)) - len(slots) + 1)
        scores[: max(0, len(slots) - seen.window)] = -np.inf
        weights = np.exp(scores - scores.max())
        out[t, head] = weights / weights.sum() @ values[slots]
    return out


def numbers(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def one(visible: int, path: Any = (), **more: Any) -> Seen:
    return Seen(np.array([visible]), np.array([path], np.int64).reshape(1, -1), **more)


@pytest.mark.parametrize("format_name", sorted(KV_FORMATS))
@pytest.mark.parametrize("head_dim", [16, 24, 64, 80])
@pytest.mark.parametrize("heads", [1, 2, 3, 5])
@pytest.mark.parametrize(("visible", "n_path"), [(1, 0), (37, 0), (300, 0), (20, 3), (127, 6)])
def test_attention_matches_numpy(
    rng: np.random.Generator, format_name: str, head_dim: int, heads: int, visible: int, n_path: int
) -> None:
    keys, values = numbers(rng, N_SLOTS, head_dim), numbers(rng, N_SLOTS, head_dim)
    q = numbers(rng, 1, heads, head_dim)
    slopes = np.linspace(0.1, 0.5, heads).astype(np.float32)
    path = rng.permutation(np.arange(310, N_SLOTS))[:n_path]
    cache = Cache(format_name, keys, values)
    for seen in (
        one(visible, path),
        one(visible, path, slopes=slopes),
        one(visible, path, window=9),
    ):
        expected = twin(q, keys, values, seen)
        assert_allclose(cache.attend(q, seen), expected, rtol=0, atol=TOLERANCE[format_name])


@pytest.mark.parametrize("format_name", sorted(KV_FORMATS))
@pytest.mark.parametrize("n_run", [21, 125, 128])
@pytest.mark.parametrize("window", [WIDE, 5])
def test_a_path_counts_like_a_run_to_the_bit(
    rng: np.random.Generator, format_name: str, n_run: int, window: int
) -> None:
    keys, values, q = (numbers(rng, N_SLOTS, 64) for _ in range(3))
    q = q[:3].reshape(1, 3, 64)
    path = np.array([250, 241, 263, 244, 260, 259, 247])
    whole = np.concatenate([np.arange(n_run), path])
    branched = Cache(format_name, keys, values).attend(q, one(n_run, path, window=window))
    in_a_row = Cache(format_name, keys[whole], values[whole])
    assert_array_equal(branched, in_a_row.attend(q, one(len(whole), window=window)))


@pytest.mark.parametrize("format_name", sorted(KV_FORMATS))
@pytest.mark.parametrize("window", [7, 130, WIDE])
@pytest.mark.parametrize("first", [1, 70, 126, 256])
def test_a_run_of_tokens_gives_the_bits_of_each_alone(
    rng: np.random.Generator, format_name: str, window: int, first: int
) -> None:
    cache = Cache(format_name, numbers(rng, N_SLOTS, 48), numbers(rng, N_SLOTS, 48))
    q, nothing = numbers(rng, 5, 3, 48), np.empty((5, 0), np.int64)
    together = cache.attend(q, Seen(np.arange(first, first + 5), nothing, window))
    for t in range(5):
        alone = cache.attend(q[t : t + 1], one(first + t, window=window))
        assert_array_equal(together[t : t + 1], alone)


def test_a_huge_score_neither_overflows_nor_hides_the_rest(rng: np.random.Generator) -> None:
    keys, values = numbers(rng, N_SLOTS, 32), numbers(rng, N_SLOTS, 32)
    q = np.full((1, 1, 32), 8000.0, np.float32)
    out = Cache("f32", keys, values).attend(q, one(200))
    assert_allclose(out[0, 0], values[(keys[:200] @ q[0, 0]).argmax()], rtol=1e-4)


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
    rows.rotate(head.ctypes.data, cos.ctypes.data, sin.ctypes.data, rotary_dim, interleaved)
    assert_allclose(head, expected, atol=1e-6)
