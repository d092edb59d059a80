"""Thresholds for a budget, on random weights: what is expected is measured again here."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engine.decoder import Decoder
from engine.kernels.sparse import BY_INPUTS, BY_ROWS, DENSE
from engine.sparse_formats import Sparse
from engine.sparsity import costs, neurons, thresholds
from engine.sparsity.copies import make_copies
from engine.sparsity.costs import Costs
from tests.engine.decoders import small_config, small_decoder

# a dense feed-forward takes 3: rows of `up` are one of it, inputs of `down` another
PAYS = Costs(by_inputs=(1.0, 1.0), by_rows=(2.0, 1.0))


def texts(n: int = 2) -> list[list[int]]:
    return np.random.default_rng(3).integers(0, 97, (n, 120)).tolist()


def apply(decoder: Decoder, found: thresholds.Thresholds) -> None:
    copies = make_copies(decoder.config, decoder.weights)
    decoder.use_thresholds(Sparse(found.values, found.paths, copies))


def kl(decoder: Decoder, values: np.ndarray, piece: list[int]) -> float:
    """The twin of neurons.loss, in float64."""
    everything = np.full_like(values, -1)
    both = []
    for each in (everything, values):
        logits = decoder.probe(piece, each, neurons.START, record=False)[0].astype(np.float64)
        both.append(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))
    p, q = both
    return float((np.exp(p) * (p - q)).sum(axis=1).mean())


def test_loss_is_the_mean_divergence_from_the_dense_distributions() -> None:
    decoder = small_decoder(small_config())
    pieces = neurons.pieces_of(texts())
    reference = [neurons.distributions(decoder, piece) for piece in pieces]
    values = np.full((2, 2), 0.3, np.float32)
    expected = np.mean([kl(decoder, values, piece) for piece in pieces])
    assert expected > 0.01
    assert neurons.loss(decoder, pieces, reference, values) == pytest.approx(expected, rel=2e-3)
    nothing_skipped = np.full((2, 2), -1, np.float32)
    assert neurons.loss(decoder, pieces, reference, nothing_skipped) < 1e-6


@pytest.mark.parametrize("flags", [{}, {"gated": False, "activation": "gelu"}])
def test_statistics_count_what_thresholds_leave(flags: dict[str, Any]) -> None:
    decoder = small_decoder(small_config(**flags))
    pieces = neurons.pieces_of(texts())
    for layer, stats in enumerate(neurons.statistics(decoder, pieces)):
        down = neurons._input_energies(decoder.weights.matrices[f"layers.{layer}.w_down"])
        energy = np.square(stats.products.astype(np.float64)) * down
        for gate, product in ((0, 0), (5, 0), (0, 5), (3, 8)):
            kept = stats.gates > stats.levels[0][gate]
            kept &= stats.products > stats.levels[1][product]
            assert stats.active_inputs[gate, product] == pytest.approx(kept.mean())
            dropped = 1 - (energy * kept).sum() / energy.sum()
            assert stats.dropped[gate, product] == pytest.approx(dropped, abs=1e-9)
        assert stats.active_inputs[5, 0] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("budget", [0.003, 0.03])
def test_calibrated_thresholds_keep_to_their_budget(budget: float) -> None:
    decoder = small_decoder(small_config())
    found = thresholds.calibrate(decoder, texts(), budget, PAYS)
    assert not found.is_dense
    measured = np.mean([kl(decoder, found.values, piece) for piece in texts()])
    assert 0 < measured <= budget * 1.01
    assert found.kl == pytest.approx(measured, rel=0.01, abs=1e-5)
    for layer in found.layers:
        assert (layer.path == DENSE) == (layer.saved_s == 0)
        assert layer.active_inputs <= layer.active_rows <= 1


def test_a_larger_budget_saves_more() -> None:
    decoder = small_decoder(small_config())
    small, large = (thresholds.calibrate(decoder, texts(), b, PAYS) for b in (0.003, 0.1))
    saved = [sum(layer.saved_s for layer in found.layers) for found in (small, large)]
    assert saved[0] < saved[1]


def test_a_path_that_is_not_faster_is_not_taken() -> None:
    decoder = small_decoder(small_config())
    never = Costs(by_inputs=(-1.0, 1.0), by_rows=(-1.0, 1.0))
    assert thresholds.calibrate(decoder, texts(), 10.0, never).is_dense
    only_inputs = Costs(by_inputs=(1.0, 1.0), by_rows=(-1.0, 1.0))
    found = thresholds.calibrate(decoder, texts(), 0.1, only_inputs)
    assert set(found.paths.tolist()) <= {DENSE, BY_INPUTS} and not found.is_dense
    assert (found.values[:, 0] == -1).all()


@pytest.mark.parametrize("flags", [{}, {"gated": False, "activation": "gelu"}])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_forced_share_is_left_out(flags: dict[str, Any], share: float) -> None:
    decoder = small_decoder(small_config(**flags))
    ids = texts(1)[0]
    found = thresholds.forced(decoder, [ids], share)
    apply(decoder, found)
    cache = decoder.new_cache()
    decoder.extend(cache, ids[: neurons.START])
    for token_id in ids[neurons.START :]:
        decoder.extend(cache, [token_id])
    n_all = (len(ids) - neurons.START) * decoder.config.intermediate_size
    active = decoder.n_active / n_all
    site = 0 if decoder.config.gated else 1
    assert np.abs(active[:, site] - (1 - share)).max() < 0.05


def test_exact_thresholds_are_zero_and_for_relu_only() -> None:
    decoder = small_decoder(small_config(activation="relu"))
    found = thresholds.exact(decoder, texts(), PAYS)
    assert (found.values == 0).all() and (found.paths == BY_ROWS).all()
    assert all(0.25 < layer.active_rows < 0.75 and layer.kl == 0 for layer in found.layers)
    slow = Costs(by_inputs=(0.0, 1.0), by_rows=(0.0, 1.0))
    assert thresholds.exact(decoder, texts(), slow).is_dense
    assert thresholds.exact(small_decoder(small_config()), texts(), PAYS).is_dense


def test_costs_leave_the_decoder_as_it_was() -> None:
    decoder = small_decoder(small_config(n_layers=2), "q4")
    apply(decoder, thresholds.forced(decoder, texts(), 0.5))
    before = decoder.sparse
    copies = make_copies(decoder.config, decoder.weights)
    found = thresholds.measure_costs(decoder, copies, texts())
    assert decoder.sparse is before
    assert np.isfinite([*found.by_inputs, *found.by_rows]).all()
    plain = small_decoder(small_config(gated=False))
    found = costs.measure(plain, make_copies(plain.config, plain.weights), [(1.0, 1.0)] * 2, 2, 1)
    assert found.by_rows[0] == -np.inf and found.saved(BY_ROWS, 0.0, 0.0) == -np.inf


def test_texts_that_are_too_short_are_refused() -> None:
    with pytest.raises(ValueError, match="thresholds need texts of 32 tokens"):
        neurons.pieces_of([[1] * 31])
