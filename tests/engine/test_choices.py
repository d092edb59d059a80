"""Tokens that were chosen behind a screen and proved are those of the dense engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import engine
from engine import choices
from engine.model import Model
from engine.sparsity import calibration
from tests.engine.decoders import small_config, small_model

PROMPT = [5, 17, 3, 88, 42, 7]
WAYS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0},
    "drawn": {"temperature": 0.9, "top_k": 5, "seed": 3},
    "drawn from many": {"temperature": 1.5, "top_k": 40, "top_p": 0.9, "seed": 4},
    "with penalties": {"temperature": 0, "repetition_penalty": 1.3},
    "from all": {"temperature": 1.0, "top_k": 0, "seed": 5},
}


@pytest.fixture
def model(tmp_path: Path) -> Model:
    config = small_config(vocab_size=611)
    found = small_model(config=config, packed_file=tmp_path / "small.weights")
    calibration.calibrate(found)
    return found


def answer(model: Model, level: str, **values: Any) -> tuple[list[tuple[int, float]], list[int]]:
    """(token, log-probability) of every step, and what the cache holds afterwards."""
    model.set_sparsity(level)
    model.cache.truncate(0)
    params = engine.SamplingParams(max_tokens=60, **values)
    steps = [step[:3:2] for step in engine.stream(model, PROMPT, params)]
    return steps, list(model.cache.token_ids)  # type: ignore[return-value]


@pytest.mark.parametrize("lookup", [True, False])
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_exact_gives_the_tokens_and_log_probabilities_of_off(
    model: Model, way: dict[str, Any], lookup: bool
) -> None:
    assert answer(model, "exact", lookup=lookup, **way) == answer(
        model, "off", lookup=lookup, **way
    )


@pytest.mark.parametrize("way", ["greedy", "drawn"])
def test_a_wrong_choice_is_replaced_and_the_text_goes_on_from_there(
    model: Model, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = answer(model, "off", **WAYS[way])
    real, calls = choices.chosen, []

    def often_wrong(scores: Any, params: Any, random: Any) -> int:
        calls.append(real(scores, params, random))
        return calls[-1] if len(calls) % 5 else (calls[-1] + 1) % 611

    monkeypatch.setattr(choices, "chosen", often_wrong)
    assert answer(model, "exact", **WAYS[way]) == expected
    assert len(calls) > 20  # some tokens were chosen again


def test_an_end_of_the_answer_is_proved_too(model: Model) -> None:
    tokens = [token for token, _ in answer(model, "off", temperature=0)[0]]
    stop = next(token for token in tokens[10:] if token not in tokens[:10])
    model.stop_ids = frozenset({stop})
    expected, cached = answer(model, "off", temperature=0)
    assert expected[-1][0] == -1 and len(expected) > 10
    assert answer(model, "exact", temperature=0) == (expected, cached)


def test_several_tokens_wait_for_one_proof(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choices, "PATIENCE_S", 60.0)
    model.set_sparsity("exact")
    sizes, real = [], model.decoder.head

    def watched(states: np.ndarray) -> np.ndarray:
        sizes.append(len(states))
        return real(states)

    monkeypatch.setattr(model.decoder, "head", watched)
    params = engine.SamplingParams(temperature=0, max_tokens=40, lookup=False)
    assert len(list(engine.stream(model, PROMPT, params))) == 40
    assert sizes == [16, 16, 7]  # the first token is chosen from the prompt's own logits


def test_cancelling_keeps_what_was_given_out(model: Model) -> None:
    model.set_sparsity("exact")
    cancel = engine.Cancel()
    params = engine.SamplingParams(temperature=0, max_tokens=60, lookup=False)
    tokens = []
    for step in engine.stream(model, PROMPT, params, cancel=cancel):
        tokens.append(step.token_id)
        if len(tokens) == 5:
            cancel.set()
    assert step.finish_reason == "cancelled"
    given = [token for token in tokens if token >= 0]
    assert model.cache.token_ids == [*PROMPT, *given][: len(model.cache.token_ids)]
    assert len(model.cache.token_ids) == len(PROMPT) + len(given) - 1


@pytest.mark.parametrize("threads", [1, 2])
def test_the_head_gives_its_bits_again_from_the_states(threads: int) -> None:
    model = small_model(config=small_config(vocab_size=611), threads=threads)
    logits = model.decoder.extend(model.decoder.new_cache(), PROMPT, all_logits=True)
    states = model.decoder.states(len(PROMPT))
    assert_array_equal(model.decoder.head(states), logits)
    assert_array_equal(model.decoder.head(states[2:3]), logits[2:3])
    model.close()
