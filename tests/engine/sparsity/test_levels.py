"""One knob: what it takes, what it needs, and that off takes everything back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import engine
from engine.formats import weight_format
from engine.generate import prefill
from engine.kernels.tables import O_SITE, UP_SITE
from engine.model import Model
from engine.sparsity import calibration, kv, layer_calibration, thresholds
from engine.sparsity import costs as costs_module
from engine.sparsity.costs import NEVER, Costs
from engine.sparsity.knob import NotCalibratedError, parse_level
from engine.sparsity.layer_calibration import BUDGETS
from engine.sparsity.levels import Sparsity
from engine.sparsity.texts import ANSWER_TOKENS, QUESTIONS
from tests.engine.decoders import small_config, small_model

IDS = [5, 17, 3, 88, 42, 7]


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    # what is faster for such a small model is chance
    monkeypatch.setattr(
        layer_calibration, "layer_costs", lambda *_: Costs(NEVER, NEVER, NEVER, NEVER, 1.0)
    )
    config = small_config(vocab_size=611)
    return small_model(config=config, packed_file=tmp_path / "small.weights")


def greedy(model: Model) -> list[int]:
    params = engine.SamplingParams(temperature=0, max_tokens=40)
    return [step.token_id for step in engine.stream(model, IDS, params) if step.token_id >= 0]


@pytest.mark.parametrize(
    ("given", "meant"), [("Fast ", "fast"), ("off", "off"), ("0.5", 0.5), (0, 0.0), (0.9, 0.9)]
)
def test_a_level_is_a_name_or_a_share(given: str | float, meant: str | float) -> None:
    assert parse_level(given) == meant


@pytest.mark.parametrize("given", ["fats", "", "-0.1", "0.95", "nan", 1.0, True, -1])
def test_other_levels_are_one_line_with_the_rule(given: str | float) -> None:
    with pytest.raises(
        ValueError, match=r"^sparsity takes auto, off, exact, .* 0 to 0\.9, got "
    ) as error:
        parse_level(given)
    assert "\n" not in str(error.value)


def test_the_nearest_name_is_suggested() -> None:
    with pytest.raises(ValueError, match="did you mean 'balanced'"):
        parse_level("balance")


def test_a_level_that_needs_a_calibration_names_the_command(model: Model) -> None:
    for level in ("exact", "balanced", "fast", 0.5):
        with pytest.raises(NotCalibratedError, match="`sparsechat sparsity calibrate`"):
            model.set_sparsity(level)
    assert model.sparsity == Sparsity()
    model.set_sparsity(0)
    assert model.sparsity == Sparsity(0.0)


def test_a_calibration_is_kept_and_read_again(model: Model) -> None:
    stages: list[str] = []
    made = calibration.calibrate(model, lambda stage, fraction: stages.append(stage))
    assert list(dict.fromkeys(stages)) == [
        "the model's own answers",
        "what the layers lose",
        "thresholds of fast",  # which leave nothing out, so that those of balanced do not either
        "the head",
    ]
    read = calibration.stored(model)
    assert read is not None
    ours, theirs = made.screen, read.screen
    assert ours.margin == theirs.margin and ours.n_first == theirs.n_first
    assert_array_equal(ours.bounds, theirs.bounds)
    assert read.texts == made.texts and len(read.texts) == len(QUESTIONS)
    for name in ("scores", "rest", "basis"):
        assert_array_equal(getattr(ours, name).data, getattr(theirs, name).data)
        assert getattr(ours, name)[2:] == getattr(theirs, name)[2:]


def test_what_layers_leave_out_is_kept_and_read_again(model: Model) -> None:
    calibration.calibrate(model)
    found = layer_calibration.stored(model)
    assert found is not None
    forced = thresholds.forced(model.decoder, [IDS * 20], 0.3, (UP_SITE, O_SITE))
    forced = replace(forced, kl=0.5)
    made = found._replace(thresholds={"balanced": forced, "fast": forced})
    assert model.packed_file is not None
    path = model.packed_file.with_suffix(".layers3.json")
    path.write_text(json.dumps(layer_calibration._record(made)))
    read = layer_calibration.stored(model)
    assert read is not None and read.costs == made.costs
    for level in ("balanced", "fast"):
        again = read.thresholds[level]
        assert (again.sites, again.kl) == (forced.sites, forced.kl)
        for name in ("values", "paths", "projections"):
            assert_array_equal(getattr(again, name), getattr(forced, name))
            assert getattr(again, name).dtype == getattr(forced, name).dtype
    model.set_sparsity("balanced")
    assert model.sparsity.sites == forced.sites
    greedy(model)
    assert (model.decoder.n_active[:, [UP_SITE, O_SITE]] > 0).all()
    for damaged in ("", "[]", "{}", '{"costs": [1], "levels": 3}'):
        path.write_text(damaged)
        assert layer_calibration.stored(model) is None
        with pytest.raises(NotCalibratedError):
            model.set_sparsity("balanced")
    model.set_sparsity("exact")  # needs the head only


@pytest.mark.parametrize(("gain", "is_taken"), [(0.03, True), (0.01, False), (-0.1, False)])
def test_layers_skip_only_where_whole_tokens_are_seen_to_be_faster(
    model: Model, monkeypatch: pytest.MonkeyPatch, gain: float, is_taken: bool
) -> None:
    """Though each layer alone is expected to save."""
    costs = Costs((1.0, 1.0), (2.0, 1.0), (1.0, 1.0), (0.5, 0.5), token_s=1.0)
    monkeypatch.setattr(layer_calibration, "layer_costs", lambda *_: costs)
    monkeypatch.setattr(costs_module, "gain", lambda *_: gain)
    calibration.calibrate(model)
    for level in ("balanced", "fast"):
        model.set_sparsity(level)
        assert (model.sparsity.layers is not None) == is_taken
        assert any(site.active < 1 for site in model.sparsity.sites) == is_taken


def test_an_adapter_leaves_thresholds_out_until_it_goes(model: Model) -> None:
    calibration.calibrate(model)
    found = layer_calibration.stored(model)
    assert found is not None and model.packed_file is not None
    forced = thresholds.forced(model.decoder, [IDS * 20], 0.3)
    record = layer_calibration._record(found._replace(thresholds=dict.fromkeys(BUDGETS, forced)))
    model.packed_file.with_suffix(".layers3.json").write_text(json.dumps(record))
    model.set_sparsity("fast")
    assert model.sparsity.layers is not None
    model.adapter = object()  # type: ignore[assignment]
    model.set_sparsity("fast")
    assert model.sparsity.layers is None and model.decoder.sparse is None
    model.set_adapter(None)
    assert model.sparsity.layers is not None


def test_states_are_those_of_each_token_and_end_of_the_answers(model: Model) -> None:
    model.stop_ids = frozenset({11, 12, 13, 14})
    collection = calibration.Collection(model)
    while collection.step() < 1:
        continue
    texts, states = collection.texts, collection.states
    expected, n_ends = [], 0
    for text in texts:  # the prompt of a model without a tokenizer is one token
        model.decoder.extend(model.decoder.new_cache(), text, all_logits=True)
        ended = len(text) <= ANSWER_TOKENS
        expected.append(model.decoder.states(len(text))[: None if ended else -1])
        n_ends += ended
    assert 0 < n_ends < len(texts)
    np.testing.assert_allclose(states, np.concatenate(expected), atol=1e-5)


def test_balanced_gives_the_tokens_of_off_and_off_the_bits_of_before(model: Model) -> None:
    dense, logits = greedy(model), model.logits(IDS)
    calibration.calibrate(model)
    model.set_sparsity("balanced")
    assert model.sparsity.kv == kv.BALANCED
    assert greedy(model) == dense
    assert_array_equal(model.logits(IDS), logits)  # all logits are asked for: nothing is skipped
    cache = model.decoder.new_cache()
    screened = model.decoder.extend(cache, IDS, n_best=1).copy()
    assert (screened != logits[-1:]).any()
    model.set_sparsity("off")
    assert model.sparsity == Sparsity("off")
    cache = model.decoder.new_cache()
    assert_array_equal(model.decoder.extend(cache, IDS, n_best=1), logits[-1:])


def test_a_share_of_the_feed_forward_is_skipped(model: Model) -> None:
    calibration.calibrate(model)
    model.set_sparsity(0.7)
    assert model.sparsity.level == 0.7 and model.sparsity.layers is not None
    sparse, n = greedy(model), 40
    read = model.decoder.n_active[:, :2] / (n * model.config.intermediate_size)
    assert len(sparse) == n and (0.1 < read).all() and (read < 0.6).all()
    model.set_sparsity("off")
    assert model.decoder.sparse is None


@pytest.mark.parametrize("level", ["off", "exact", "balanced", 0.3])
def test_a_finer_level_does_not_go_on_from_what_was_skipped(
    model: Model, level: str | float
) -> None:
    calibration.calibrate(model)
    model.set_sparsity(0.7)
    text = [*IDS, *greedy(model), 3, 4]
    assert model.cached_prefix(text) > len(IDS)
    model.set_sparsity(level)
    assert model.cached_prefix(text) == len(IDS)  # the prompt was read dense
    logits, _ = prefill(model, text)
    assert_array_equal(logits, model.logits(text)[-1:])


def test_a_coarser_level_goes_on_from_what_there_is(model: Model) -> None:
    calibration.calibrate(model)
    for level in ("off", "balanced", 0.5, 0.7):
        model.set_sparsity(level)
        text = [*IDS, *greedy(model)]
        n_held = model.cached_prefix(text)
        assert n_held == len(text) - 1
    model.set_sparsity(0.8)
    assert model.cached_prefix(text) == n_held


def test_a_cache_knows_where_skipping_began(model: Model) -> None:
    calibration.calibrate(model)
    decoder, cache = model.decoder, model.decoder.new_cache()
    decoder.extend(cache, IDS)
    assert cache.n_dense == len(IDS)
    model.set_sparsity(0.7)
    decoder.extend(cache, IDS[:1])
    decoder.extend(cache, IDS)  # several at once are dense, but look back at what is not
    assert cache.n_dense == len(IDS) < len(cache.token_ids)
    cache.truncate(len(IDS) + 1)
    assert cache.n_dense == len(IDS)
    cache.truncate(len(IDS))
    decoder.extend(cache, IDS)
    assert cache.n_dense == len(cache.token_ids) == 2 * len(IDS)


def test_a_damaged_calibration_counts_as_none(model: Model) -> None:
    calibration.calibrate(model)
    assert model.packed_file is not None
    path = calibration.file_of(model.packed_file)
    whole = path.read_bytes()
    for damaged in (b"", whole[:100], b"\xff" * 200, whole[:8] + b"{}" + whole[10:]):
        path.write_bytes(damaged)
        assert calibration.stored(model) is None
        with pytest.raises(NotCalibratedError):
            model.set_sparsity("balanced")


def test_states_are_what_the_head_multiplies(model: Model) -> None:
    logits = model.decoder.extend(model.decoder.new_cache(), IDS, all_logits=True)
    states = model.decoder.states(len(IDS))
    head = model.weights.matrices["head"]
    rows = weight_format(head.format).dequantize(head.data)[: head.n_out, : head.n_in]
    expected = states @ rows.T
    np.testing.assert_allclose(logits, expected, atol=1e-3 * np.abs(expected).max())
