"""Decoding that skips blocks of the cache: which ones, and what never changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from engine.cache import KVCache
from engine.decoder import Branches, Decoder
from engine.kernels.listed import BLOCK
from engine.kernels.ranges import GROUP, SPREAD
from engine.kernels.skipping import FIRST, RECENT
from engine.kernels.tables import FEW
from engine.kv_formats import KV_FORMATS
from engine.sparsity.kv import MIN_BLOCKS, KVBudget
from tests.engine.decoders import small_config, small_decoder

IDS = np.random.default_rng(0).integers(0, 97, 437).tolist()
TIGHT, WIDE = KVBudget(9, min_tokens=0), KVBudget(1000, min_tokens=0)


def decoded(
    decoder: Decoder, budget: KVBudget | None, n: int = 12, cache: KVCache | None = None
) -> np.ndarray:
    """Logits after each of the last n of IDS, one call a token; the others are the prompt."""
    cache = cache or decoder.new_cache()
    decoder.extend(cache, IDS[len(cache.token_ids) : -n])
    decoder.use_kv_budget(budget)
    rows = [decoder.extend(cache, [i])[0].copy() for i in IDS[-n:]]
    decoder.use_kv_budget(None)
    return np.stack(rows)


@pytest.mark.parametrize("kv", sorted(KV_FORMATS))
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_budget_for_everything_gives_the_bits_of_dense_attention(kv: str, threads: int) -> None:
    decoder = small_decoder(small_config(), "q4", threads, kv)
    assert_array_equal(decoded(decoder, WIDE), decoded(decoder, None))


@pytest.mark.parametrize("kv", sorted(KV_FORMATS))
def test_the_number_of_threads_does_not_change_a_bit(kv: str) -> None:
    one = decoded(small_decoder(small_config(), "q4", 1, kv), TIGHT)
    for threads in (2, 3, 5):
        assert_array_equal(decoded(small_decoder(small_config(), "q4", threads, kv), TIGHT), one)


def test_a_tight_budget_changes_what_is_computed() -> None:
    decoder = small_decoder(small_config())
    assert (decoded(decoder, TIGHT) != decoded(decoder, None)).any(axis=1).all()


def test_several_tokens_at_once_read_what_each_would_read_alone() -> None:
    decoder = small_decoder(small_config(), threads=2)
    cache = decoder.new_cache()
    decoder.extend(cache, IDS[:-FEW])
    decoder.use_kv_budget(TIGHT)
    together = decoder.extend(cache, IDS[-FEW:], all_logits=True)
    decoder.use_kv_budget(None)
    assert_array_equal(together, decoded(decoder, TIGHT, FEW))


def test_prompts_branches_and_short_texts_are_read_whole() -> None:
    decoder = small_decoder(small_config())
    dense = decoder.extend(decoder.new_cache(), IDS)[0].copy()
    decoder.use_kv_budget(TIGHT)
    cache = decoder.new_cache()
    assert_array_equal(decoder.extend(cache, IDS)[0], dense)
    n = len(IDS)
    branches = Branches([n, n + 1], [[n], [n + 1]])
    branched = decoder.branch(cache, [1, 2], branches).copy()
    decoder.use_kv_budget(None)
    assert_array_equal(decoder.branch(cache, [1, 2], branches), branched)
    late = KVBudget(TIGHT.n_blocks, min_tokens=n + 1)
    assert_array_equal(decoded(decoder, late), decoded(decoder, None))


def test_the_cache_knows_which_tokens_read_all_of_it() -> None:
    decoder = small_decoder(small_config())
    cache = decoder.new_cache()
    decoded(decoder, TIGHT, 5, cache)
    assert cache.n_dense == len(IDS) - 5


@pytest.mark.parametrize(
    ("flags", "is_dense"),
    [
        ({"position": "alibi"}, True),
        ({"sliding_window": 300}, True),
        ({"sliding_window": 300, "full_attention_layers": (1,)}, False),
    ],
)
def test_alibi_and_windows_are_left_alone(flags: dict[str, Any], is_dense: bool) -> None:
    decoder = small_decoder(small_config(**flags))
    same = (decoded(decoder, TIGHT) == decoded(decoder, None)).all()
    assert same == is_dense


@pytest.mark.parametrize("kv", sorted(KV_FORMATS))
def test_the_blocks_read_are_those_of_the_numpy_choice(kv: str) -> None:
    decoder = small_decoder(small_config(), kv=kv)
    cache = decoder.new_cache()
    decoder.extend(cache, IDS)
    decoder.use_kv_budget(TIGHT)
    decoder.extend(cache, [7])
    buffers = decoder._scratch.latest
    config, ranges = decoder.config, unpacked(cache)
    per_kv, last = config.n_heads // config.n_kv_heads, config.n_layers - 1
    for kv_head in range(config.n_kv_heads):
        queries = buffers.queries[0, kv_head * per_kv : (kv_head + 1) * per_kv].astype(float)
        expected = numpy_choice(queries, ranges[last, kv_head], len(cache.token_ids), TIGHT)
        n = buffers.n_listed[0, kv_head]
        assert buffers.lists[0, kv_head, :n].tolist() == expected
        assert n == TIGHT.n_blocks


def numpy_choice(
    queries: np.ndarray, ranges: np.ndarray, n_tokens: int, budget: KVBudget
) -> list[int]:
    """queries (heads, width), ranges (blocks, width, 2): the numbers of the blocks, ascending."""
    total = -(-n_tokens // BLOCK)
    upper, lower = np.moveaxis(ranges[: total - RECENT], -1, 0)
    rated = queries.clip(min=0) @ upper.T + queries.clip(max=0) @ lower.T
    distance = (rated.max(axis=1, keepdims=True) - rated).min(axis=0)
    distance[:FIRST] = 0
    chosen = np.argsort(distance, kind="stable")[: budget.n_blocks - RECENT]
    return [*sorted(chosen.tolist()), *range(total - RECENT, total)]


def unpacked(cache: KVCache) -> np.ndarray:
    """Ranges of the blocks, (n_layers, n_kv_heads, blocks, width, 2): upper ends, lower ends."""
    data = cache.key_ranges().data
    numbers = data.view(np.float16).reshape(*data.shape[:3], data.shape[3] // 64, 2, GROUP)
    blocks = np.moveaxis(numbers, -1, 3)
    return blocks.reshape(*data.shape[:2], -1, *blocks.shape[-2:]).astype(np.float32)


def assert_ranges_fit(cache: KVCache) -> None:
    n_blocks = len(cache.token_ids) // BLOCK
    ranges = unpacked(cache)[:, :, :n_blocks]
    assert cache.key_ranges().n_blocks == n_blocks == ranges.shape[2]
    keys, scales = cache.parts().keys.astype(np.float32), cache.parts().scales
    keys = keys.reshape(*keys.shape[:2], -1, *keys.shape[-2:])
    if scales.size:
        keys *= scales[:, :, :, 0].reshape(*keys.shape[:3], 1, BLOCK)
    keys = keys[:, :, :n_blocks]
    means, spreads = keys.mean(axis=-1), float(SPREAD) * keys.std(axis=-1)
    expected = np.stack([means + spreads, means - spreads], axis=-1)
    assert_allclose(ranges, expected, rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("kv", sorted(KV_FORMATS))
def test_ranges_follow_the_cache(kv: str) -> None:
    decoder = small_decoder(small_config(), kv=kv)
    cache = decoder.new_cache()
    for end in (40, 300, len(IDS)):
        decoder.extend(cache, IDS[len(cache.token_ids) : end])
        assert_ranges_fit(cache)
    cache.truncate(100)
    assert_ranges_fit(cache)
    decoder.extend(cache, IDS[::-1][:50])
    assert_ranges_fit(cache)
    n = len(cache.token_ids)
    slots = [n + 3, n + 12, n + 1]
    for i, slot in enumerate(slots):
        decoder.branch(cache, [40 + i], Branches([slot], [slots[: i + 1]]))
    cache.adopt(slots, [40, 41, 42])
    decoder.extend(cache, IDS[:30])
    assert_ranges_fit(cache)
    other = decoder.new_cache()
    decoder.extend(other, IDS[:77])
    cache.restore(other.token_ids, other.export(77))
    assert_ranges_fit(cache)


def test_a_text_that_was_cut_and_taken_up_otherwise_is_read_like_a_new_one() -> None:
    decoder = small_decoder(small_config(), threads=2)
    cache = decoder.new_cache()
    decoder.extend(cache, IDS[:200] + IDS[:235])
    decoder.use_kv_budget(TIGHT)
    decoder.extend(cache, [1])
    decoder.use_kv_budget(None)
    cache.truncate(200)
    assert_array_equal(decoded(decoder, TIGHT, cache=cache), decoded(decoder, TIGHT))


def test_a_budget_below_what_is_always_read_is_refused() -> None:
    with pytest.raises(ValueError, match=f"at least {MIN_BLOCKS}, got {MIN_BLOCKS - 1}"):
        KVBudget(MIN_BLOCKS - 1)
