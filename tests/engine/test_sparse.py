"""Decoding that reads a part of the feed-forwards, against the dense decoder and its twin."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from engine.decoder import Decoder
from engine.kernels.sparse import BY_INPUTS, BY_ROWS, DENSE
from engine.kernels.tables import N_SITES
from engine.sparse_formats import SPARSE_FORMATS, Sparse
from engine.sparsity.copies import make_copies
from tests.engine.decoders import small_config, small_decoder

IDS = [5, 17, 3, 88, 42, 42, 7, 61, 0, 96, 33, 12]
BIASES = {"mlp_bias": True, "o_bias": True, "qkv_bias": True}
PLAIN = {"gated": False, "norm": "layernorm", "residual": "parallel"}


def use(
    decoder: Decoder,
    gate: float,
    product: float,
    path: int,
    rounded: bool = False,
    importance: np.ndarray | None = None,
) -> None:
    n = decoder.config.n_layers
    copies = make_copies(decoder.config, decoder.weights, rounded=rounded)
    values = np.tile(np.array([gate, product, 0, 0], np.float32), (n, 1))
    paths, none = np.full(n, path, np.int64), np.zeros((n, 2), np.int64)
    decoder.use_thresholds(Sparse(values, paths, none, copies, importance))


def one_by_one(decoder: Decoder) -> np.ndarray:
    cache = decoder.new_cache()
    return np.concatenate([decoder.extend(cache, [i]).copy() for i in IDS])


def at_once(decoder: Decoder) -> np.ndarray:
    return decoder.extend(decoder.new_cache(), IDS, all_logits=True)


def close(ours: np.ndarray, expected: np.ndarray, format_name: str) -> None:
    # down takes float32 activations here and 15 bits in the dense product
    tolerance = 2e-3 if format_name in ("q4", "q4_0", "q8") else 2e-5
    assert_allclose(ours, expected, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("format_name", sorted(SPARSE_FORMATS - {"int8"}))
@pytest.mark.parametrize("path", [BY_ROWS, BY_INPUTS])
@pytest.mark.parametrize("flags", [{}, BIASES, {"activation": "relu"}], ids=["", "biases", "relu"])
def test_thresholds_that_leave_nothing_out_change_roundings_only(
    format_name: str, path: int, flags: dict[str, Any]
) -> None:
    decoder = small_decoder(small_config(**flags), format_name)
    expected = one_by_one(decoder)
    # ReLU's zeros are left out, and that is exact
    use(decoder, 0, 0, path)
    close(one_by_one(decoder), expected, format_name)


@pytest.mark.parametrize("flags", [PLAIN, PLAIN | BIASES | {"norm_bias": True}])
def test_a_plain_relu_layer_reads_only_the_inputs_that_are_not_zero(flags: dict[str, Any]) -> None:
    decoder = small_decoder(small_config(activation="relu", **flags))
    expected = one_by_one(decoder)
    use(decoder, 0, 0, BY_INPUTS)
    close(one_by_one(decoder), expected, "f32")
    n_all = len(IDS) * decoder.config.intermediate_size
    read = decoder.n_active
    assert (read[:, 1] < 0.75 * n_all).all()
    assert (read[:, 1] > 0.25 * n_all).all()


def test_a_gated_relu_layer_reads_only_rows_whose_gate_is_open() -> None:
    decoder = small_decoder(small_config(activation="relu"))
    use(decoder, 0, 0, BY_ROWS)
    one_by_one(decoder)
    n_all = len(IDS) * decoder.config.intermediate_size
    rows, inputs, *_ = decoder.n_active.T
    assert (rows < 0.75 * n_all).all() and (rows > 0.25 * n_all).all()
    assert (inputs <= rows).all()


@pytest.mark.parametrize("path", [BY_ROWS, BY_INPUTS])
@pytest.mark.parametrize("flags", [{}, BIASES, {"activation": "gelu"}])
def test_decoding_leaves_out_what_a_probe_sets_to_zero(path: int, flags: dict[str, Any]) -> None:
    decoder = small_decoder(small_config(**flags))
    gate = 0.1 if path == BY_ROWS else -1.0
    values = np.tile(np.array([gate, 0.05, -1, -1], np.float32), (decoder.config.n_layers, 1))
    expected = decoder.probe(decoder.new_cache(), IDS, values).logits
    use(decoder, gate, 0.05, path)
    ours = one_by_one(decoder)
    close(ours, expected, "f32")
    decoder.use_thresholds(None)
    assert np.abs(ours - one_by_one(decoder)).max() > 0.01 * np.abs(ours).max()


def test_gates_are_compared_by_their_importance() -> None:
    decoder = small_decoder(small_config())
    n, width = decoder.config.n_layers, decoder.config.intermediate_size
    importance = np.random.default_rng(0).lognormal(0, 1, (n, width)).astype(np.float32)
    importance[:, :20] = 1e-6  # these never count
    values = np.tile(np.array([0.1, -1, -1, -1], np.float32), (n, 1))
    cache = decoder.new_cache()
    expected = decoder.probe(cache, IDS, values, importance=importance).logits
    use(decoder, 0.1, -1, BY_ROWS, importance=importance)
    ours = one_by_one(decoder)
    close(ours, expected, "f32")
    # by hand, of the first layer, whose inputs are dense
    probe = decoder.probe(decoder.new_cache(), IDS, np.full_like(values, -1), 0, len(IDS))
    gates = np.abs(probe.neurons[0, 0])
    assert decoder.n_active[0, 0] == (gates * importance[0] > 0.1).sum()
    use(decoder, 0.1, -1, BY_ROWS)
    assert np.abs(ours - one_by_one(decoder)).max() > 0.01 * np.abs(ours).max()
    with pytest.raises(ValueError, match=r"importance must be of shape \(\d, 136\), got"):
        use(decoder, 0.1, -1, BY_ROWS, importance=importance[:, :5])


def test_a_probe_records_gates_and_products_and_leaves_the_first_tokens_dense() -> None:
    decoder = small_decoder(small_config())
    dense = at_once(decoder)
    nothing = np.full((decoder.config.n_layers, N_SITES), np.inf, np.float32)
    record = decoder.probe(decoder.new_cache(), IDS, nothing, 4, len(IDS)).neurons
    assert record.shape == (decoder.config.n_layers, 2, len(IDS), 136)
    everything = np.full_like(nothing, -1)
    cache = decoder.new_cache()
    assert_array_equal(decoder.probe(cache, IDS[:7], everything).logits, dense[:7])
    assert_array_equal(decoder.probe(cache, IDS[7:], everything).logits, dense[7:])
    seen = decoder.probe(decoder.new_cache(), IDS, everything, 4, len(IDS)).neurons
    assert_array_equal(record[:, :, :4], seen[:, :, :4])
    assert np.abs(record[1, :, 4:] - seen[1, :, 4:]).max() > 0
    assert seen.any(axis=(2, 3)).all()
    some = decoder.probe(decoder.new_cache(), IDS, everything, 4, 5)
    assert_array_equal(some.neurons, seen[:, :, -5:])
    assert not len(some.logits)


@pytest.mark.parametrize("path", [BY_ROWS, BY_INPUTS])
def test_inputs_in_8_bits_change_little(path: int) -> None:
    decoder = small_decoder(small_config(), "q4")
    use(decoder, 0.05, 0.02, path)
    expected, read = one_by_one(decoder), decoder.n_active
    use(decoder, 0.05, 0.02, path, rounded=True)
    ours = one_by_one(decoder)
    assert 0 < np.abs(ours - expected).max() < 0.05 * np.abs(expected).max()
    assert_allclose(decoder.n_active, read, rtol=0.02)


@pytest.mark.parametrize("path", [BY_ROWS, BY_INPUTS])
@pytest.mark.parametrize("rounded", [False, True])
def test_the_number_of_threads_does_not_change_a_bit(path: int, rounded: bool) -> None:
    found = []
    for threads in (1, 2, 3, 5):
        decoder = small_decoder(small_config(), "q4", threads)
        use(decoder, 0.05, 0.02, path, rounded)
        found.append(one_by_one(decoder))
    for other in found[1:]:
        assert_array_equal(other, found[0])


def test_several_tokens_and_layers_without_a_path_stay_dense() -> None:
    decoder = small_decoder(small_config(), "q4", 2)
    expected, alone = at_once(decoder).copy(), one_by_one(decoder)
    use(decoder, 10.0, 10.0, BY_ROWS)
    assert_array_equal(at_once(decoder), expected)
    assert np.abs(one_by_one(decoder) - alone).max() > 0
    use(decoder, 10.0, 10.0, DENSE)
    assert_array_equal(one_by_one(decoder), alone)


def test_without_thresholds_the_bits_are_those_of_the_dense_decoder() -> None:
    decoder = small_decoder(small_config(), "q4_0", 2)
    expected = one_by_one(decoder)
    use(decoder, 0.5, 0.5, BY_ROWS)
    one_by_one(decoder)
    decoder.use_thresholds(None)
    assert decoder.sparse is None
    assert_array_equal(one_by_one(decoder), expected)
