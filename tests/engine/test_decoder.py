"""The layer loop against its NumPy twin, and its promises: the same bits however it is called."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from engine.cancel import Cancel, Cancelled
from engine.config import Rope
from engine.decoder import CHUNK, Branches, Decoder
from engine.formats import FORMATS, weight_format
from engine.kv_formats import KV_FORMATS
from tests.engine.decoders import packed_weights, random_values, small_config, small_decoder
from tests.parity import reference

IDS = [5, 17, 3, 88, 42, 42, 7, 61, 0, 96, 33, 12]

FLAGS: dict[str, dict[str, Any]] = {
    "llama": {},
    "one-kv-head": {"n_kv_heads": 1, "head_dim": 40, "n_heads": 5},
    "interleaved-rope": {"rope": Rope(interleaved=True)},
    "partial-rope": {"rope": Rope(fraction=0.5)},
    "biases": {"qkv_bias": True, "o_bias": True, "mlp_bias": True, "head_bias": True},
    "tied-and-scaled": {"tied_head": True, "logit_scale": 0.25, "embedding_scale": 3.0},
    "window": {"sliding_window": 4},
    "window-on-one-layer": {"sliding_window": 4, "full_attention_layers": (1,)},
    "qk-norm": {"qk_norm": True},
    "qk-norm-of-whole-rows": {"qk_norm_whole": True, "qkv_bias": True, "clip_qkv": 0.8},
    "qk-layer-norm-of-whole-rows": {
        "norm": "layernorm", "qk_norm_whole": True, "position": "alibi", "clip_qkv": 0.8,
    },
    "gemma-2": {
        "post_norms": True, "attention_softcap": 2.0, "logit_softcap": 5.0, "sliding_window": 4,
        "full_attention_layers": (1,), "activation": "gelu_tanh", "embedding_scale": 8.0,
    },
    "gemma-3": {
        "post_norms": True, "qk_norm": True, "sliding_window": 4, "full_attention_layers": (1,),
        "rope": Rope(theta=1e6), "local_rope": Rope(theta=100.0),
    },
    "neox": {
        "norm": "layernorm", "norm_bias": True, "residual": "parallel", "gated": False,
        "activation": "gelu", "qkv_bias": True, "o_bias": True, "mlp_bias": True,
        "rope": Rope(fraction=0.25),
    },
    "parallel-shared-norm": {
        "norm": "layernorm", "residual": "parallel", "shared_norm": True, "gated": False,
        "activation": "gelu_tanh",
    },
    "mpt": {
        "norm": "layernorm", "position": "alibi", "gated": False, "activation": "gelu",
        "tied_head": True, "clip_qkv": 0.8, "n_heads": 6, "n_kv_heads": 6,
    },
    "alibi-with-window": {"position": "alibi", "sliding_window": 5},
    "gpt-neo": {
        "norm": "layernorm", "norm_bias": True, "position": "learned", "gated": False,
        "activation": "gelu_tanh", "o_bias": True, "mlp_bias": True, "attention_scale": 1.0,
    },
    "relu": {"activation": "relu"},
    "gated-gelu": {"activation": "gelu"},
}  # fmt: skip


def logits_of(decoder: Decoder, token_ids: Sequence[int]) -> np.ndarray:
    return decoder.extend(decoder.new_cache(), token_ids, all_logits=True)


@pytest.mark.parametrize("flags", FLAGS.values(), ids=FLAGS)
def test_logits_match_the_numpy_decoder(flags: dict[str, Any]) -> None:
    config = small_config(**flags)
    expected = reference.logits(config, random_values(config), IDS)
    for threads in (1, 3):
        ours = logits_of(small_decoder(config, threads=threads), IDS)
        assert_allclose(ours, expected, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("format_name", sorted(FORMATS))
def test_quantised_weights_give_the_logits_of_their_dequantised_values(format_name: str) -> None:
    config = small_config()
    values = random_values(config)
    weights = packed_weights(values, format_name)
    for name, weight in weights.matrices.items():
        dequantised = weight_format(format_name).dequantize(weight.data)
        values[name] = dequantised[: weight.n_out, : weight.n_in]
    expected = reference.logits(config, values, IDS)
    ours = logits_of(small_decoder(config, format_name), IDS)
    # random weights amplify the 15 bits of an int8 activation; real ones do not (parity/)
    tolerance = 3e-3 if weight_format(format_name).INT8 else 2e-5
    assert_allclose(ours, expected, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("format_name", sorted(FORMATS))
@pytest.mark.parametrize("threads", [1, 2])
def test_cached_decode_equals_prefill_bit_for_bit(format_name: str, threads: int) -> None:
    decoder = small_decoder(small_config(), format_name, threads)
    at_once = logits_of(decoder, IDS)
    cache = decoder.new_cache()
    one_by_one = np.concatenate([decoder.extend(cache, [i]).copy() for i in IDS])
    assert_array_equal(one_by_one, at_once)


def test_the_number_of_threads_does_not_change_a_bit() -> None:
    config = small_config()
    one = logits_of(small_decoder(config, "q4", threads=1), IDS)
    for threads in (2, 3, 5):
        assert_array_equal(logits_of(small_decoder(config, "q4", threads), IDS), one)


def test_a_prompt_longer_than_a_chunk_is_one_text() -> None:
    config = small_config()
    ids = np.random.default_rng(1).integers(0, 97, 2 * CHUNK + 5).tolist()
    expected = reference.logits(config, random_values(config), ids)
    decoder = small_decoder(config)
    assert_allclose(logits_of(decoder, ids), expected, atol=2e-5 * np.abs(expected).max())
    progress: list[tuple[int, int]] = []
    decoder.extend(decoder.new_cache(), ids, on_progress=lambda *now: progress.append(now))
    assert progress == [(CHUNK, len(ids)), (2 * CHUNK, len(ids)), (len(ids), len(ids))]


@pytest.mark.parametrize("kv", sorted(KV_FORMATS))
def test_every_format_of_the_cache_gives_the_same_bits_at_once_and_one_by_one(kv: str) -> None:
    ids = np.random.default_rng(2).integers(0, 97, CHUNK + 20).tolist()
    decoder = small_decoder(small_config(), "q4", threads=2, kv=kv)
    cache = decoder.new_cache()
    decoder.extend(cache, ids[:-30])
    one_by_one = [decoder.extend(cache, [i])[0].copy() for i in ids[-30:]]
    assert_array_equal(np.stack(one_by_one), logits_of(decoder, ids)[-30:])


def test_a_coarse_prompt_differs_little_and_always_alike() -> None:
    ids = np.random.default_rng(3).integers(0, 97, CHUNK + 40).tolist()
    decoder = small_decoder(small_config(), "q4")
    cache = decoder.new_cache()
    decoder.extend(cache, ids, coarse=CHUNK + 7)
    coarse = decoder.extend(cache, [5])[0]
    exact = logits_of(decoder, [*ids, 5])[-1]
    assert 0 < np.abs(exact - coarse).max() < 0.05 * np.abs(exact).max()
    assert cache.token_ids == [*ids, 5]
    again = decoder.new_cache()
    decoder.extend(again, ids, coarse=CHUNK + 7)
    assert_array_equal(decoder.extend(again, [5])[0], coarse)


@pytest.mark.parametrize("kv", sorted(KV_FORMATS))
@pytest.mark.parametrize("flags", [{}, FLAGS["window"], FLAGS["alibi-with-window"]])
def test_branches_equal_separate_texts(flags: dict[str, Any], kv: str) -> None:
    decoder = small_decoder(small_config(**flags), "q4", threads=2, kv=kv)
    cache = decoder.new_cache()
    decoder.extend(cache, IDS)
    n = len(IDS)
    decoder.branch(cache, [1, 2], Branches([n, n + 1], [[n], [n + 1]]))
    # both second tokens follow beam 1, whose token is 2
    paths = [[n + 1, n + 2], [n + 1, n + 3]]
    logits = decoder.branch(cache, [3, 4], Branches([n + 2, n + 3], paths)).copy()
    for row, last in zip(logits, (3, 4), strict=True):
        assert_array_equal(row, logits_of(decoder, [*IDS, 2, last])[-1])
    assert cache.token_ids == IDS


@pytest.mark.parametrize("kv", sorted(KV_FORMATS))
def test_an_adopted_branch_goes_on_like_any_text(kv: str) -> None:
    decoder = small_decoder(small_config(), kv=kv)
    cache = decoder.new_cache()
    decoder.extend(cache, IDS)
    n = len(IDS)
    decoder.branch(cache, [1, 2, 3], Branches([n, n + 1, n + 2], [[n], [n + 1], [n + 2]]))
    cache.adopt([n + 2], [3])
    assert cache.token_ids == [*IDS, 3]
    expected = logits_of(decoder, [*IDS, 3, 9])[-1:]
    assert_array_equal(decoder.extend(cache, [9]), expected)


def test_a_truncated_cache_goes_on_from_there() -> None:
    decoder = small_decoder(small_config())
    cache = decoder.new_cache()
    decoder.extend(cache, IDS)
    cache.truncate(4)
    assert_array_equal(decoder.extend(cache, [1]), logits_of(decoder, [*IDS[:4], 1])[-1:])


@pytest.mark.parametrize("threads", [1, 2])
def test_cancel_ends_a_call_and_keeps_whole_chunks(threads: int) -> None:
    decoder = small_decoder(small_config(n_layers=3), threads=threads)
    cancel = Cancel()
    cache = decoder.new_cache()
    ids = [7] * (3 * CHUNK)

    def after_the_first_chunk(done: int, total: int) -> None:
        cancel.set()

    with pytest.raises(Cancelled):
        decoder.extend(cache, ids, cancel=cancel, on_progress=after_the_first_chunk)
    assert cache.token_ids == ids[:CHUNK]
    cancel.clear()
    logits = decoder.extend(cache, [5], cancel=cancel)
    assert_array_equal(logits, logits_of(decoder, [*ids[:CHUNK], 5])[-1:])


def test_cancel_from_another_thread_ends_a_running_call() -> None:
    decoder = small_decoder(small_config(n_layers=60, hidden_size=512, intermediate_size=2048))
    cancel = Cancel()
    timer = threading.Timer(0.05, cancel.set)
    timer.start()
    with pytest.raises(Cancelled):
        for _ in range(10_000):
            decoder.extend(decoder.new_cache(), [7] * CHUNK, cancel=cancel)
    timer.join()


def test_threads_stay_together_through_many_cancelled_calls() -> None:
    """A thread that is late in reading the flag must not meet the next call's barriers."""
    decoder = small_decoder(small_config(), threads=5)
    expected = logits_of(decoder, IDS)
    cancel = Cancel()
    cancel.set()
    wrong: list[int] = []

    def cancel_and_compare() -> None:
        for round_ in range(1000):
            for _ in range(3):
                with suppress(Cancelled):
                    decoder.extend(decoder.new_cache(), IDS, cancel=cancel)
            if (logits_of(decoder, IDS) != expected).any():
                wrong.append(round_)

    worker = threading.Thread(target=cancel_and_compare, daemon=True)
    worker.start()
    worker.join(timeout=120)
    assert not worker.is_alive(), "the threads wait for each other forever"
    assert wrong == []


@pytest.mark.parametrize("token_ids", [[97], [-1], [3, 500]])
def test_token_ids_outside_the_vocabulary_are_refused(token_ids: list[int]) -> None:
    decoder = small_decoder(small_config())
    with pytest.raises(ValueError, match=r"token ids must be in \[0, 97\)"):
        decoder.extend(decoder.new_cache(), token_ids)
