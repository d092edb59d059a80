"""The level auto: tried in parts, beside a conversation that does not notice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import engine
from engine.model import Model
from engine.sparsity import auto
from engine.sparsity.trials import faster_level
from tests.engine.decoders import small_config, small_model

IDS = [5, 17, 3, 88, 42, 7]


@pytest.fixture
def model(tmp_path: Path) -> Model:
    config = small_config(vocab_size=611)
    return small_model(config=config, packed_file=tmp_path / "small.weights")


def run(model: Model) -> list[float]:
    trial, done = engine.Trial(model), [0.0]
    while done[-1] < 1:
        done.append(trial.step())
    return done


def test_auto_is_off_until_exact_was_tried(model: Model) -> None:
    model.set_sparsity("auto")
    assert model.sparsity.level == "off" and faster_level(model) is None


@pytest.mark.parametrize(("seconds", "level"), [(0.5, "exact"), (2.0, "off")])
def test_the_faster_level_is_kept(
    model: Model, seconds: float, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = {"off": 1.0, "exact": seconds}
    monkeypatch.setattr(auto, "_seconds", lambda model, level, prompt: times[level])
    run(model)
    model.set_sparsity("auto")
    assert model.sparsity.level == faster_level(model) == level
    assert run(model) == [0.0, 1.0]  # nothing is left to be tried


def test_a_trial_advances_in_parts_and_measures_real_answers(model: Model) -> None:
    done = run(model)
    assert done == sorted(done) and len(done) > 20 and faster_level(model) in ("off", "exact")


def test_a_conversation_goes_on_between_the_parts(model: Model) -> None:
    params = engine.SamplingParams(temperature=0, max_tokens=30)
    expected = [step.token_id for step in engine.stream(model, IDS, params)]
    model.cache.truncate(0)
    trial, found = engine.Trial(model), []
    for step in engine.stream(model, IDS, params):
        found.append(step.token_id)
        trial.step()
    assert found == expected
    held = list(model.cache.token_ids)
    trial.step()
    assert list(model.cache.token_ids) == held and model.sparsity.level == "off"


def test_a_damaged_record_is_tried_again(model: Model) -> None:
    run(model)
    (file,) = model.packed_file.parent.glob("*.trial*")  # type: ignore[union-attr]
    file.write_text(json.dumps({"speed": "?"}))
    assert faster_level(model) is None
    run(model)
    assert faster_level(model) is not None
