"""What a level costs is what a slow look at every token says."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import engine
from engine.kernels.tables import DOWN_SITE, O_SITE, UP_SITE
from engine.model import Model
from engine.sampling import SamplingParams
from engine.sparsity import cost, head, kv, layer_calibration, levels, methods, thresholds
from engine.sparsity.levels import Sparsity, apply
from tests.engine.decoders import random_values, save_llama, small_config

VOCAB = 2011
PROMPT, ANSWER = [5, 17, 3, 88], [42, 42, 7, 1961, 0, 96, 33, 12]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARSECHAT_HOME", str(tmp_path_factory.mktemp("home")))
        folder = save_llama(
            tmp_path_factory.mktemp("checkpoint") / "llama",
            random_values(small_config(vocab_size=VOCAB)),
            vocab_size=VOCAB,
        )
        return engine.load(folder, "q8", threads=1)


def screened(model: Model) -> Sparsity:
    return Sparsity("balanced", head.certified(model.weights.matrices["head"]))


def test_dense_beside_dense_costs_nothing_and_skips_nothing(model: Model) -> None:
    answers = [([*PROMPT, *ANSWER], len(PROMPT))]
    found = cost.measure(model, Sparsity(), answers)
    assert (found.n_tokens, found.kl, found.same) == (len(ANSWER), 0.0, 1.0)
    assert found.read_bytes == found.n_bytes
    head_part, keys = found.parts
    for part in (head_part, keys):
        assert part.active == 1.0 and part.read_bytes == part.dense_bytes
    # the answer's tokens see 4 to 11 tokens
    assert keys.dense_bytes == pytest.approx(7.5 * model.cache.bytes_per_token)
    assert found.sites == ()


def test_the_divergence_is_that_of_the_softmax_of_all_logits(model: Model) -> None:
    sparsity = screened(model)
    ids, params = [*PROMPT, *ANSWER], SamplingParams(temperature=0)
    found = cost.measure(model, sparsity, [(ids, len(PROMPT))], params)
    dense = model.logits(ids)[len(PROMPT) - 1 : -1].astype(np.float64)
    model.decoder.use_screen(sparsity.screen)
    cache = model.decoder.new_cache()
    model.decoder.extend(cache, PROMPT[:-1])
    asked = ids[len(PROMPT) - 1 : -1]
    rows = [model.decoder.extend(cache, [i], n_best=1)[0].astype(np.float64) for i in asked]
    model.decoder.use_screen(None)
    p, q = (np.exp(x) / np.exp(x).sum(axis=1, keepdims=True) for x in (dense, np.array(rows)))
    divergences = (p * np.log(p / q)).sum(axis=1)
    assert found.kl == pytest.approx(divergences.mean(), rel=1e-6)
    assert found.kl_error == pytest.approx(divergences.std(ddof=1) / np.sqrt(len(ANSWER)), rel=1e-6)
    assert 0 < found.kl and found.same == 1.0


def test_the_groups_that_were_computed_are_those_that_have_the_bits_of_the_head(
    model: Model,
) -> None:
    sparsity = screened(model)
    dense = model.logits(PROMPT)[-1]
    model.sparsity = sparsity
    model.decoder.use_screen(sparsity.screen)
    cache = model.decoder.new_cache()
    model.decoder.extend(cache, PROMPT[:-1])
    logits = model.decoder.extend(cache, PROMPT[-1:], n_best=3)[0].copy()
    (part,) = head.describe(model, 3)
    model.set_sparsity("off")
    n_groups = -(-VOCAB // 16)
    exact = np.append(logits == dense, np.ones(-VOCAB % 16, bool)).reshape(n_groups, 16).all(axis=1)
    assert part.active == exact.mean() and 0 < part.active < 1
    size = model.weights.matrices["head"].data.nbytes
    assert part.dense_bytes == size
    assert part.read_bytes == pytest.approx(head.n_bytes(sparsity.screen) + part.active * size)


def test_a_share_of_the_layers_is_counted_by_layer_and_site(model: Model) -> None:
    answers = [([*PROMPT, *ANSWER], len(PROMPT)), ([*PROMPT, 1, 2, 3], len(PROMPT))]
    chosen = thresholds.forced(model.decoder, [[*PROMPT, *ANSWER] * 8], 0.5, (UP_SITE, O_SITE))
    sparsity = Sparsity(0.5, layers=levels.sparse_of(model, chosen), sites=chosen.sites)
    found = cost.measure(model, sparsity, answers, SamplingParams(temperature=0))
    assert model.packed_file is not None and found.kl > 0
    assert [(site.layer, site.site) for site in found.sites] == [
        (layer, site) for layer in (0, 1) for site in ("up", "down", "o")
    ]
    for site in found.sites:
        assert 0.2 < site.active < 0.8 and site.active != 0.5
        column = {"up": UP_SITE, "down": DOWN_SITE, "o": O_SITE}[site.site]
        expected = thresholds.site_cost(model.decoder, site.layer, column, site.active)
        assert site.read_bytes == expected.read_bytes
    shares = {part.name: part for part in found.parts}
    some = [site for site in found.sites if site.site == "up"]
    assert shares["up"].active == pytest.approx(np.mean([site.active for site in some]))
    assert shares["up"].read_bytes == sum(site.read_bytes for site in some)
    assert shares["up"].detail == "in 2 of 2 layers"
    # what was read is what the decoder counted while it read it
    apply(model, sparsity)
    for ids, start in answers:
        cache = model.decoder.new_cache()
        model.decoder.extend(cache, ids[: start - 1])
        for token_id in ids[start - 1 : -1]:
            model.decoder.extend(cache, [token_id], n_best=1)
    n_rows = model.decoder.n_active[:, UP_SITE] / (11 * model.config.intermediate_size)
    assert [site.active for site in some] == pytest.approx(n_rows.tolist())
    model.set_sparsity("off")


@pytest.mark.parametrize("stop_at", [0.1, 0.7])
def test_a_measurement_that_is_stopped_leaves_the_level_in_use(
    model: Model, stop_at: float
) -> None:
    class Enough(Exception):
        pass

    def report(stage: str, fraction: float) -> None:
        if fraction > stop_at:
            raise Enough

    before, dense = Sparsity("exact"), model.logits(PROMPT)
    model.sparsity = before
    with pytest.raises(Enough):
        cost.measure(
            model, screened(model), [([*PROMPT, *ANSWER], len(PROMPT))], on_progress=report
        )
    assert model.sparsity is before
    assert_array_equal(
        model.decoder.extend(model.decoder.new_cache(), PROMPT, n_best=1), dense[-1:]
    )
    model.set_sparsity("off")


def test_only_so_much_of_an_answer_is_compared_as_there_is_room_for(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost, "_MOST_BYTES", 3 * 8 * VOCAB)
    model.sparsity = screened(model)
    found = engine.compare_with_dense(model, PROMPT, ANSWER, SamplingParams(temperature=0))
    model.set_sparsity("off")
    assert (found.level, found.n_tokens) == ("balanced", 3)


def test_what_calibration_measured_is_there_for_the_next_start(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:

    monkeypatch.setattr(cost.texts, "HELD_OUT", cost.texts.HELD_OUT[:2])
    monkeypatch.setattr(cost, "ANSWER_TOKENS", 9)
    assert engine.level_costs(model) == {}
    found = engine.calibrate(model)
    assert list(found) == ["balanced", "fast"]
    assert engine.level_costs(model) == found
    record = found["balanced"].record()
    assert [part["name"] for part in record["parts"]] == [
        *("head", "keys, values", "up", "down", "q k v", "o"),
    ]
    assert [(site["layer"], site["site"]) for site in record["sites"]] == [
        (layer, site) for layer in (0, 1) for site in ("up", "down", "q k v", "o")
    ]
    assert model.packed_file is not None
    file = model.packed_file.with_suffix(".costs2.json")
    file.write_text("[[1]]")
    assert engine.level_costs(model) == {}


def test_each_method_is_measured_alone_and_kept(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost.texts, "HELD_OUT", cost.texts.HELD_OUT[:1])
    monkeypatch.setattr(cost, "ANSWER_TOKENS", 9)
    monkeypatch.setattr(methods, "LONG", 140)
    monkeypatch.setattr(kv, "FAST", kv.KVBudget(6, min_tokens=128))
    monkeypatch.setitem(layer_calibration.BUDGETS, "fast", 1.0)  # of so small a model little can go
    engine.calibrate(model)
    assert engine.method_costs(model) == []
    found = engine.measure_methods(model)
    assert [each.level for each in found] == [
        *("head only", "feed-forward only", "projections only"),
        "keys and values only, 141 tokens",
    ]
    head_only, feed_forward, projections, keys = found
    assert {part.name for part in head_only.parts} == {"head", "keys, values"}
    skipping = [{site.site for site in each.sites if site.active < 1} for each in found]
    assert skipping[0] == skipping[3] == set()
    assert skipping[1] and skipping[1] <= {"up", "down"}
    assert skipping[2] and skipping[2] <= {"q k v", "o"}
    assert feed_forward.kl > 0 and projections.kl > 0 and keys.kl > 0
    part = next(part for part in keys.parts if part.name == "keys, values")
    assert part.read_bytes < part.dense_bytes and part.detail.startswith("6 of 1")
    assert model.sparsity == Sparsity() and not model.cache.token_ids
    assert engine.method_costs(model) == found
    engine.calibrate(model)
    assert engine.method_costs(model) == []


def test_methods_need_a_calibration(model: Model) -> None:
    model.packed_file = None
    with pytest.raises(engine.NotCalibratedError, match="llama needs a calibration"):
        engine.measure_methods(model)
