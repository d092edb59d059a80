"""Sparsity on the other families: exact gives the text of off, and what does not apply says so."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import engine
from engine.kernels.tables import DOWN_SITE, UP_SITE
from engine.sparsity import calibration, cost, head, layer_calibration, levels, texts
from engine.sparsity.costs import NEVER, Costs
from engine.sparsity.kv import KVBudget
from engine.sparsity.levels import Sparsity
from engine.sparsity.limits import ALIBI, BIASED_HEAD, NO_GATE, WINDOWS, limits
from tests.tiny import FAMILY_NAMES, LONG_IDS, PROMPT_IDS, tiny_checkpoint

pytestmark = pytest.mark.parity

EXPECTED = {
    "neox": [NO_GATE],
    "mpt": [ALIBI, NO_GATE],
    "gpt-neo": [WINDOWS, NO_GATE],
    "gptj": [BIASED_HEAD, NO_GATE],
    "gemma2": [WINDOWS],
    "phi3": [],
}
GREEDY: dict[str, Any] = {"temperature": 0}
DRAWN: dict[str, Any] = {"temperature": 0.8, "top_k": 8, "seed": 3}


@cache
def tiny_model(name: str) -> engine.Model:
    return engine.load(tiny_checkpoint(name), threads=1)


@pytest.fixture(autouse=True)
def _off(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    levels.apply(tiny_model(request.node.callspec.params["name"]), Sparsity())


def text(model: engine.Model, n: int = 32, **options: Any) -> list[tuple[int, float]]:
    """Tokens and their log-probabilities, from an empty cache."""
    model.cache.truncate(0)
    params = engine.SamplingParams(max_tokens=n, **options)
    steps = engine.stream(model, PROMPT_IDS, params)
    return [(step.token_id, step.logprob) for step in steps if step.token_id >= 0]


@pytest.mark.parametrize("margin", [1.0001, 0.0], ids=["bounds that hold", "bounds that do not"])
@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_exact_gives_the_text_and_the_numbers_of_off(name: str, margin: float) -> None:
    model = tiny_model(name)
    dense = [text(model, **options) for options in (GREEDY, DRAWN)]
    matrices = model.weights.matrices
    screen = head.certified(matrices.get("head", matrices["embedding"]))
    levels.apply(model, Sparsity("exact", screen._replace(margin=margin, margins=margin)))
    assert model.decoder.can_screen(1) is not model.config.head_bias
    for options, expected in zip((GREEDY, DRAWN), dense, strict=True):
        found = text(model, **options)
        assert [token_id for token_id, _ in found] == [token_id for token_id, _ in expected]
        np.testing.assert_allclose(*([lp for _, lp in t] for t in (found, expected)), atol=1e-5)


@pytest.mark.parametrize("name", EXPECTED)
def test_calibrated_levels_skip_what_they_can_and_name_what_they_cannot(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(texts, "prompts", lambda *_: iter([list(PROMPT_IDS), list(LONG_IDS)]))
    monkeypatch.setattr(texts, "ANSWER_TOKENS", 24)
    monkeypatch.setattr(cost, "ANSWER_TOKENS", 8)
    # what is faster for such a small model is chance
    costs = Costs(NEVER, NEVER, NEVER, NEVER, 1.0)
    monkeypatch.setattr(layer_calibration, "layer_costs", lambda *_: costs)
    model = tiny_model(name)
    monkeypatch.setattr(model, "packed_file", tmp_path / "tiny.weights")
    assert list(limits(model.config)) == EXPECTED[name]
    dense = text(model, **GREEDY)
    measured = engine.calibrate(model)
    assert calibration.stored(model) is not None
    for level in ("balanced", "fast"):
        assert 0 <= measured[level].kl < 0.5
        assert (BIASED_HEAD in [part.detail for part in measured[level].parts]) == (name == "gptj")
    model.set_sparsity("exact")
    assert [token_id for token_id, _ in text(model, **GREEDY)] == [i for i, _ in dense]
    model.set_sparsity(0.5)
    n_tokens = len(text(model, **GREEDY))
    read = model.decoder.n_active[:, [UP_SITE, DOWN_SITE]] / model.config.intermediate_size
    sites = [UP_SITE, DOWN_SITE] if model.config.gated else [DOWN_SITE]
    assert (0 < read[:, sites]).all() and (read[:, sites] < 0.8 * n_tokens).all()
    model.set_sparsity("off")
    assert text(model, **GREEDY) == dense


@pytest.mark.parametrize("name", ["mpt", "neox", "gemma2", "gpt-neo"])
def test_keys_and_values_are_skipped_where_positions_allow(name: str) -> None:
    model = tiny_model(name)
    ids = np.random.default_rng(5).integers(3, 331, 120).tolist()

    def logits(budget: KVBudget | None) -> np.ndarray:
        model.decoder.use_kv_budget(budget)
        cache = model.decoder.new_cache()
        model.decoder.extend(cache, ids[:-1])
        return model.decoder.extend(cache, ids[-1:]).copy()

    try:
        dense = logits(None)
        assert np.abs(logits(KVBudget(1000, 16)) - dense).max() < 1e-3  # more than there are
        few = logits(KVBudget(6, 16))
    finally:
        model.decoder.use_kv_budget(None)
    if name == "mpt":
        assert_array_equal(few, dense)
    else:
        assert np.isfinite(few).all() and np.abs(few - dense).max() > 1e-3
