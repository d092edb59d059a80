"""Decoding that reads q, k, v and o by inputs, against the dense decoder and a probe."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from engine.decoder import Decoder
from engine.kernels.tables import N_SITES, QKV_SITE
from engine.sparse_formats import SPARSE_FORMATS, Sparse
from engine.sparsity import copies
from tests.engine.decoders import small_config, small_decoder

IDS = [5, 17, 3, 88, 42, 42, 7, 61, 0, 96, 33, 12]
BIASES = {"mlp_bias": True, "o_bias": True, "qkv_bias": True}
PLAIN = {"gated": False, "norm": "layernorm", "residual": "parallel", "norm_bias": True}
BOTH, ATTENTION_IN, ATTENTION_OUT = (1, 1), (1, 0), (0, 1)


def values_of(decoder: Decoder, least: float, sites: tuple[int, int]) -> np.ndarray:
    values = np.full((decoder.config.n_layers, N_SITES), -1, np.float32)
    values[:, QKV_SITE:] = np.where(sites, least, -1)
    return values


def use(decoder: Decoder, least: float, sites: tuple[int, int]) -> None:
    config = decoder.config
    made = copies.make_copies(config, decoder.weights, names=copies.projections(config))
    n = config.n_layers
    where = np.tile(np.array(sites, np.int64), (n, 1))
    values = values_of(decoder, least, sites)
    decoder.use_thresholds(Sparse(values, np.zeros(n, np.int64), where, made))


def one_by_one(decoder: Decoder) -> np.ndarray:
    cache = decoder.new_cache()
    return np.concatenate([decoder.extend(cache, [i]).copy() for i in IDS])


def close(ours: np.ndarray, expected: np.ndarray, format_name: str) -> None:
    # inputs are float32 here and 15 bits in the dense product
    tolerance = 2e-3 if format_name in ("q4", "q4_0", "q8") else 2e-5
    assert_allclose(ours, expected, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("format_name", sorted(SPARSE_FORMATS - {"int8"}))
@pytest.mark.parametrize("sites", [BOTH, ATTENTION_IN, ATTENTION_OUT])
@pytest.mark.parametrize("flags", [{}, BIASES | PLAIN], ids=["", "parallel"])
def test_thresholds_that_leave_nothing_out_change_roundings_only(
    format_name: str, sites: tuple[int, int], flags: dict[str, Any]
) -> None:
    decoder = small_decoder(small_config(**flags), format_name, 2)
    expected = one_by_one(decoder)
    use(decoder, 0, sites)
    close(one_by_one(decoder), expected, format_name)


@pytest.mark.parametrize("sites", [BOTH, ATTENTION_IN, ATTENTION_OUT])
@pytest.mark.parametrize("flags", [{}, BIASES, PLAIN], ids=["", "biases", "parallel"])
def test_decoding_leaves_out_what_a_probe_sets_to_zero(
    sites: tuple[int, int], flags: dict[str, Any]
) -> None:
    decoder = small_decoder(small_config(**flags))
    values = values_of(decoder, 0.5, sites)
    seen = decoder.probe(decoder.new_cache(), IDS, values, 0, len(IDS))
    expected = decoder.probe(decoder.new_cache(), IDS, values).logits.copy()
    use(decoder, 0.5, sites)
    ours = one_by_one(decoder)
    close(ours, expected, "f32")
    read = decoder.n_active[:, QKV_SITE:]
    assert_array_equal(read, np.where(sites, (np.abs(seen.inputs) > 0.5).sum(axis=(2, 3)), 0))
    decoder.use_thresholds(None)
    assert np.abs(ours - one_by_one(decoder)).max() > 0.01 * np.abs(ours).max()


def test_a_probe_records_inputs_and_leaves_the_first_tokens_dense() -> None:
    decoder = small_decoder(small_config())
    everything = values_of(decoder, -1, BOTH)
    dense = decoder.probe(decoder.new_cache(), IDS, everything, 0, len(IDS))
    assert dense.inputs.shape == (2, 2, len(IDS), 96)
    least = values_of(decoder, np.inf, BOTH)
    nothing = decoder.probe(decoder.new_cache(), IDS, least, 4, len(IDS))
    assert_array_equal(nothing.inputs[:, :, :4], dense.inputs[:, :, :4])
    assert np.abs(nothing.inputs[1, :, 4:] - dense.inputs[1, :, 4:]).max() > 0
    # the first layer's inputs are those of the dense model: what is skipped is seen before it is
    assert_array_equal(nothing.inputs[0, 0], dense.inputs[0, 0])
    assert dense.inputs.any(axis=3).all()
    some = decoder.probe(decoder.new_cache(), IDS, everything, 0, 5)
    assert_array_equal(some.inputs, dense.inputs[:, :, -5:])


def test_the_number_of_threads_does_not_change_a_bit() -> None:
    found = []
    for threads in (1, 2, 3, 5):
        decoder = small_decoder(small_config(), "q4", threads)
        use(decoder, 0.4, BOTH)
        found.append(one_by_one(decoder))
    for other in found[1:]:
        assert_array_equal(other, found[0])


def test_several_tokens_stay_dense_and_nothing_is_left_behind() -> None:
    decoder = small_decoder(small_config(), "q4", 2)
    together = decoder.extend(decoder.new_cache(), IDS, all_logits=True).copy()
    alone = one_by_one(decoder)
    use(decoder, 0.4, BOTH)
    cache = decoder.new_cache()
    assert_array_equal(decoder.extend(cache, IDS, all_logits=True), together)
    assert cache.n_dense == len(IDS)
    decoder.extend(cache, [1])
    assert cache.n_dense == len(IDS) < len(cache.token_ids)
    decoder.use_thresholds(None)
    assert_array_equal(one_by_one(decoder), alone)
