"""A whole run with a tiny Llama: its own texts, the loop, what is written and what the engine does
with it, and a run that was stopped."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import engine
from engine.sparsity.trained import Trained, file_of
from engine.training import train as training
from engine.training.events import Event, Result, Step
from engine.training.run import Run
from engine.training.settings import TrainSettings
from engine.training.sparsify.aim import Sparsify, curve
from engine.training.sparsify.answers import whole_rows
from engine.training.sparsify.outcome import read_report
from engine.training.sparsify.settings import OWN_TEXTS, SparsifySettings
from engine.training.sparsify.sparsifying import sparsify
from tests.engine.training.tiny_model import write_rows, write_tiny_model

pytestmark = pytest.mark.usefixtures("home")
OWN = SparsifySettings(goal=0.6, match=1, result="f32", questions=3, answer_tokens=12)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def settings(model: Path, tmp_path: Path) -> TrainSettings:
    return TrainSettings(
        data=str(write_rows(tmp_path / "rows.jsonl", 40)), model=str(model), name="thin",
        method="feed_forward", base="f32", tokens_per_step=256, learning_rate=3e-3, epochs=2,
        val_share=0.2, samples=0, max_spike=0.0, max_in_memory_batches=3, threads=1,
        evaluate_every=4,
    )  # fmt: skip


def losses(result: Result) -> dict[int, float]:
    return {e["step"]: e["loss"] for e in Run(result.run).history() if e["event"] == "step"}


def stopping_after(n_steps: int, events: list[Event]) -> Any:
    def should_stop() -> bool:
        return sum(isinstance(event, Step) for event in events) >= n_steps

    return should_stop


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> dict[str, Trained]:
    """Thresholds that runs would have written, by name; nothing is."""
    found: dict[str, Trained] = {}

    def write(self: Sparsify, name: str, *_: Any) -> Path:
        found[name] = self.student.trained()
        return Path(name)

    monkeypatch.setattr(Sparsify, "write", write)
    return found


@pytest.mark.parametrize("method", ["feed_forward", "lora"])
def test_a_stopped_run_goes_on_with_losses_and_thresholds_of_one_that_was_not(
    settings: TrainSettings, written: dict[str, Trained], method: str
) -> None:
    settings = settings.changed(method=method)
    whole = sparsify(settings.changed(name="whole"), OWN)
    events: list[Event] = []
    result = sparsify(settings, OWN, on_event=events.append, should_stop=stopping_after(2, events))
    assert whole and result
    while not result.finished:
        events = []
        result = training.resume(
            "thin", on_event=events.append, should_stop=stopping_after(4, events)
        )
    assert losses(result) == pytest.approx(losses(whole), abs=1e-6)
    for kind in ("values", "importance"):
        ours, expected = (getattr(written[name], kind) for name in ("thin", "whole"))
        np.testing.assert_allclose(ours, expected, atol=1e-6)
    assert [c["step"] for c in curve(result.run)] == [c["step"] for c in curve(whole.run)]


def test_the_curve_tells_what_was_left_out(
    settings: TrainSettings, written: dict[str, Trained]
) -> None:
    result = sparsify(settings, OWN)
    assert result and result.finished
    first, *_, last = curve(result.run)
    assert first["step"] == 0 and first["drift"] == pytest.approx(0, abs=1e-5)
    assert np.mean(first["active"]) == pytest.approx(0.4, abs=0.05)
    assert last["kl"] < first["kl"]
    assert last["kl"] == pytest.approx(
        [e["loss"] for e in Run(result.run).history() if e["event"] == "evaluated"][-1], abs=1e-5
    )


def test_the_model_writes_its_own_texts_and_goes_on_with_them(
    settings: TrainSettings, written: dict[str, Trained]
) -> None:
    settings = settings.changed(data=OWN_TEXTS, val_share=0.4, max_steps=1)
    heard: list[tuple[int, int]] = []
    stopped = sparsify(
        settings, OWN, on_answer=lambda *n: heard.append(n), should_stop=lambda: len(heard) > 1
    )
    assert stopped is None and heard == [(0, 3), (1, 3)]
    path = next(Path(training.runs_dir()).glob("thin/answers.jsonl"))
    first = path.read_text()
    path.write_text(first + '{"messages": [{"ro')  # what a crash leaves
    assert whole_rows(path) == 1
    result = sparsify(settings, OWN)
    assert result and result.finished
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert path.read_text().startswith(first)
    assert rows[0]["messages"][0]["content"] == "What is gravity?"
    assert len(rows) == 3


@pytest.mark.parametrize("method", ["feed_forward", "lora"])
def test_the_engine_loads_the_result_and_decodes_with_its_thresholds(
    settings: TrainSettings, method: str
) -> None:
    result = sparsify(settings.changed(method=method), OWN)
    assert result and result.path is not None
    found = read_report(result.run)
    assert found is not None
    last = curve(result.run)[-1]
    assert found.rise == pytest.approx(math.expm1(last["kl"]), rel=0.2)
    assert found.drift == pytest.approx(math.expm1(last["drift"]), rel=0.2)
    assert found.active == pytest.approx(last["active"], abs=0.05)
    assert len(found.lines()) == 4
    model = engine.load(result.path, threads=1)
    assert model.trained is not None and model.trained.share == 0.6
    engine.calibrate(model)
    model.set_sparsity(0.6)
    sparse = model.decoder.sparse
    assert sparse is not None
    np.testing.assert_array_equal(sparse.thresholds[:, :2], model.trained.values)
    model.set_sparsity(0.5)  # not what it was trained for: taken from the calibration
    assert model.decoder.sparse is not None
    assert not np.array_equal(model.decoder.sparse.thresholds[:, :2], model.trained.values)
    file_of(result.path).write_text(file_of(result.path).read_text().replace("0.6", "6"))
    with pytest.raises(ValueError, match=r"share must be in \[0, 1\], got 6"):
        engine.load(result.path)
