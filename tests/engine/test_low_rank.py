"""The layer loop with adapters, against merged weights in NumPy, and its promise of equal bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from engine.decoder import CHUNK, Branches, Decoder
from engine.formats import FORMATS
from engine.kernels.low_rank import MAX_RANK
from engine.low_rank import pack_low_rank
from engine.shapes import matrix_shapes
from tests.engine.decoders import random_values, small_config, small_decoder
from tests.engine.test_decoder import FLAGS, IDS, logits_of
from tests.parity import reference

SCALE = 0.5


def random_pairs(
    config: Any, rank: int = 8, only: tuple[str, ...] = (), seed: int = 3
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """A and B for all matrices of the layers, or those of the kinds `only`; their product is about
    half as large as the matrix."""
    rng = np.random.default_rng(seed)
    pairs = {}
    for name, (n_out, n_in) in matrix_shapes(config).items():
        if name.startswith("layers.") and (not only or name.rpartition(".")[2] in only):
            a = rng.standard_normal((rank, n_in), np.float32) / np.sqrt(n_in, dtype=np.float32)
            b = rng.standard_normal((n_out, rank), np.float32) / np.sqrt(rank, dtype=np.float32)
            pairs[name] = a, b
    return pairs


def adapted(decoder: Decoder, rank: int = 8, half: bool = False, **options: Any) -> Decoder:
    decoder.use_adapter(pack_low_rank(random_pairs(decoder.config, rank, **options), SCALE, half))
    return decoder


def merged_logits(config: Any, pairs: dict[str, tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    values = random_values(config)
    for name, (a, b) in pairs.items():
        values[name] = values[name] + SCALE * b @ a
    return reference.logits(config, values, IDS)


@pytest.mark.parametrize("flags", FLAGS.values(), ids=FLAGS)
def test_logits_are_those_of_merged_weights(flags: dict[str, Any]) -> None:
    config = small_config(**flags)
    expected = merged_logits(config, random_pairs(config))
    for threads in (1, 3):
        ours = logits_of(adapted(small_decoder(config, threads=threads)), IDS)
        assert_allclose(ours, expected, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("rank", [1, 15, 16, 17, MAX_RANK])
def test_every_rank_gives_the_logits_of_merged_weights(rank: int) -> None:
    config = small_config()
    expected = merged_logits(config, random_pairs(config, rank))
    ours = logits_of(adapted(small_decoder(config, threads=2), rank), IDS)
    assert_allclose(ours, expected, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("only", [("wq",), ("wk", "w_down"), ("w_gate", "wo"), ("wv", "w_up")])
def test_an_adapter_of_some_matrices_leaves_the_others_alone(only: tuple[str, ...]) -> None:
    config = small_config()
    expected = merged_logits(config, random_pairs(config, only=only))
    ours = logits_of(adapted(small_decoder(config, threads=2), only=only), IDS)
    assert_allclose(ours, expected, atol=2e-5 * np.abs(expected).max())


def test_ranks_may_differ_from_matrix_to_matrix() -> None:
    config = small_config()
    pairs = random_pairs(config, 4) | random_pairs(config, 33, only=("wk", "w_up"))
    decoder = small_decoder(config, threads=2)
    decoder.use_adapter(pack_low_rank(pairs, SCALE, half=False))
    expected = merged_logits(config, pairs)
    assert_allclose(logits_of(decoder, IDS), expected, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("format_name", sorted(FORMATS))
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("rank", [8, 40])
def test_cached_decode_equals_prefill_bit_for_bit(
    format_name: str, threads: int, rank: int
) -> None:
    decoder = adapted(small_decoder(small_config(), format_name, threads), rank, half=True)
    at_once = logits_of(decoder, IDS)
    cache = decoder.new_cache()
    one_by_one = np.concatenate([decoder.extend(cache, [i]).copy() for i in IDS])
    assert_array_equal(one_by_one, at_once)
    cache = decoder.new_cache()
    in_pieces = [decoder.extend(cache, IDS[i : i + 3], all_logits=True) for i in range(0, 12, 3)]
    assert_array_equal(np.concatenate(in_pieces), at_once)


@pytest.mark.parametrize("half", [False, True])
def test_the_number_of_threads_does_not_change_a_bit(half: bool) -> None:
    config = small_config()
    ids = np.random.default_rng(1).integers(0, 97, CHUNK + 5).tolist()
    one = logits_of(adapted(small_decoder(config, "q4"), half=half), ids)
    for threads in (2, 3, 5):
        many = adapted(small_decoder(config, "q4", threads), half=half)
        assert_array_equal(logits_of(many, ids), one)


def test_branches_equal_separate_texts() -> None:
    decoder = adapted(small_decoder(small_config(), "q4", threads=2))
    cache = decoder.new_cache()
    decoder.extend(cache, IDS)
    n = len(IDS)
    logits = decoder.branch(cache, [1, 2], Branches([n, n + 1], [[n], [n + 1]])).copy()
    for row, last in zip(logits, (1, 2), strict=True):
        assert_array_equal(row, logits_of(decoder, [*IDS, last])[-1])


def test_a_coarse_prompt_takes_the_adapter_too() -> None:
    ids = np.random.default_rng(3).integers(0, 97, CHUNK + 40).tolist()
    decoder = adapted(small_decoder(small_config(), "q4"))
    cache = decoder.new_cache()
    coarse = decoder.extend(cache, [*ids, 5], coarse=CHUNK + 7)[0]
    exact = logits_of(decoder, [*ids, 5])[-1]
    assert 0 < np.abs(exact - coarse).max() < 0.05 * np.abs(exact).max()


def test_without_an_adapter_all_is_as_it_was() -> None:
    decoder = small_decoder(small_config(), "q4", threads=2)
    before = logits_of(decoder, IDS)
    assert np.abs(logits_of(adapted(decoder), IDS) - before).max() > 0.1
    decoder.use_adapter(None)
    assert_array_equal(logits_of(decoder, IDS), before)


def test_float16_halves_lose_little_even_where_one_is_tiny() -> None:
    config = small_config()
    # as trained: B began at zero and is still small
    pairs = {name: (200 * a, b / 20_000) for name, (a, b) in random_pairs(config).items()}
    both = []
    for half in (False, True):
        decoder = small_decoder(config)
        decoder.use_adapter(pack_low_rank(pairs, 50.0, half))
        both.append(logits_of(decoder, IDS))
    assert_allclose(both[1], both[0], atol=2e-3 * np.abs(both[0]).max())


def test_values_beyond_float16_are_kept_as_float32() -> None:
    config = small_config()
    pairs = {name: (1e6 * a, 1e6 * b) for name, (a, b) in random_pairs(config).items()}
    assert not pack_low_rank(pairs, 1.0, half=True).half
    assert pack_low_rank(random_pairs(config), 1.0, half=True).half


def test_the_digest_tells_adapters_apart() -> None:
    config = small_config()
    digests = {
        pack_low_rank(random_pairs(config, seed=seed), scale, half).digest
        for seed in (1, 2) for scale in (1.0, 2.0) for half in (False, True)
    }  # fmt: skip
    assert len(digests) == 8
