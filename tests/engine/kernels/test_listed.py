"""Attention over listed blocks, ranges of keys and the choice of blocks, against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numba import njit
from numpy.testing import assert_allclose, assert_array_equal

from engine.cache import KVCache
from engine.kernels import ranges, skipping, softmax
from engine.kernels.attention import SEGMENT, call_store
from engine.kernels.listed import BLOCK, CHUNK, Listed, call_listed
from engine.key_ranges import KeyRanges
from engine.kv_formats import KV_FORMATS, kv_format, listed_kernels
from tests.engine.decoders import small_config

N_SLOTS = 3 * SEGMENT
TOLERANCE = {"f32": 1e-5, "f16": 2e-3, "q8": 0.03}


@njit
def place(store: int, vectors: Any, cache: int, width: int) -> None:
    for slot in range(len(vectors)):
        call_store(store, vectors[slot].ctypes.data, cache, width, slot, vectors.shape[1])


@njit
def attend(address: int, listed: Any, out: int) -> None:
    call_listed(address, listed, out)


@njit
def rate(queries: Any, group: int, out: Any) -> None:
    for row in range(len(queries)):
        ranges.rate_group(
            queries[row].ctypes.data, group, queries.shape[1], 0, out[row].ctypes.data
        )


@njit
def kth_least(values: Any, k: int) -> int:
    return skipping.kth_least(values.ctypes.data, values.size, k)  # type: ignore[no-any-return]


def numbers(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def cache_of(format_name: str, keys: np.ndarray, values: np.ndarray) -> KVCache:
    """A cache of one layer and kv head."""
    kv = kv_format(format_name)
    config = small_config(n_layers=1, n_kv_heads=1, n_heads=1, head_dim=keys.shape[1])
    cache = KVCache(config, format_name)
    cache.reserve(len(keys))
    width = -(-keys.shape[1] // 32) * 32
    place(kv.store_key.address, keys, cache.data.ctypes.data, width)
    place(kv.store_value.address, values, cache.data.ctypes.data, width)
    return cache


@pytest.mark.parametrize("format_name", sorted(KV_FORMATS))
@pytest.mark.parametrize("head_dim", [24, 64])
@pytest.mark.parametrize("heads", [1, 3, 5])
@pytest.mark.parametrize(
    ("blocks", "n_slots"), [([0], 16), ([4], 3), ([0, 3, 9, 20], 64), ([0, 5, 7, 8, 9, 23], 87)]
)
def test_attention_over_listed_blocks_matches_numpy(
    rng: np.random.Generator,
    format_name: str,
    head_dim: int,
    heads: int,
    blocks: list[int],
    n_slots: int,
) -> None:
    keys, values = numbers(rng, N_SLOTS, head_dim), numbers(rng, N_SLOTS, head_dim)
    cache, width = cache_of(format_name, keys, values), -(-head_dim // 32) * 32
    queries = np.zeros((heads, width), np.float32)
    queries[:, :head_dim] = numbers(rng, heads, head_dim)
    scores = np.full((heads, SEGMENT), np.nan, np.float32)
    partials = np.full((heads, softmax.partial_bytes(width) // 4), np.nan, np.float32)
    listed = np.array(blocks, np.int64)
    attend(
        listed_kernels(format_name).attend.address,
        Listed(
            cache.data.ctypes.data, width, queries.ctypes.data, heads, listed.ctypes.data,
            len(blocks), len(blocks), n_slots, 0.125, 0.0, scores.ctypes.data,
        ),
        partials.ctypes.data,
    )  # fmt: skip
    slots = (BLOCK * listed[:, None] + np.arange(BLOCK)).ravel()[:n_slots]
    for row in range(heads):
        logits = keys[slots].astype(float) @ queries[row, :head_dim] * 0.125
        weights = np.exp(logits - logits.max())
        assert partials[row, width] == pytest.approx(logits.max(), abs=TOLERANCE[format_name])
        assert_allclose(
            partials[row, :head_dim] / partials[row, width + 1],
            weights / weights.sum() @ values[slots],
            rtol=0,
            atol=TOLERANCE[format_name],
        )


@pytest.mark.parametrize("format_name", sorted(KV_FORMATS))
@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_blocks_are_rated_by_the_mean_and_the_spread_of_their_keys(
    rng: np.random.Generator, format_name: str, size: float
) -> None:
    n_blocks, n_groups = N_SLOTS // BLOCK, -(-N_SLOTS // BLOCK // ranges.GROUP)
    keys = numbers(rng, N_SLOTS, 32) * np.float32(size)
    cache = cache_of(format_name, keys, keys)
    found = KeyRanges(format_name, 1, 1, 32)
    found.update(cache.data, N_SLOTS)
    queries = numbers(rng, 20, 32)
    rated = []
    for group in range(n_groups):
        out = np.zeros((20, ranges.GROUP), np.float32)
        rate(queries, found.data[0, 0, group].ctypes.data, out)
        rated.append(out)
    blocks = stored_keys(cache)[:N_SLOTS].reshape(n_blocks, BLOCK, 32)
    means, spreads = blocks.mean(axis=1), float(ranges.SPREAD) * blocks.std(axis=1)
    expected = queries @ means.T + np.abs(queries) @ spreads.T
    ours = np.concatenate(rated, axis=1)[:, :n_blocks]
    assert_allclose(ours, expected, rtol=0, atol=5e-3 * size)


def stored_keys(cache: KVCache) -> np.ndarray:
    """(slots, width) of the one kv head, as the cache holds them."""
    parts = cache.parts()
    keys = parts.keys[0, 0].astype(np.float64).swapaxes(-1, -2)
    keys = keys.reshape(-1, keys.shape[-1])
    return keys * parts.scales[0, 0, :, 0].reshape(-1, 1) if parts.scales.size else keys


@pytest.mark.parametrize("k", [1, 2, 17, 31, 48])
def test_the_kth_least_parts_k_numbers_from_the_others(rng: np.random.Generator, k: int) -> None:
    values = np.abs(numbers(rng, 48)) * np.float32(100)
    values[rng.integers(0, 48, 3)] = 3e38
    limit = np.int32(kth_least(values, k)).view(np.float32)
    assert (values <= limit).sum() == k or limit == np.sort(values)[k - 1]
    assert limit >= np.sort(values)[k - 1]


def test_equals_at_the_limit_are_all_kept() -> None:
    values = np.repeat(np.array([0, 1, 2], np.float32), 16)
    limit = np.int32(kth_least(values, 20)).view(np.float32)
    assert_array_equal(values <= limit, values <= 1)


def test_a_chunk_of_blocks_is_a_segment() -> None:
    assert CHUNK * BLOCK == SEGMENT
