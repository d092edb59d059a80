"""The loop with a tiny Llama: it learns, and what stops it changes nothing of what it learns."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import engine
from engine.training import session as sessions
from engine.training import train as training
from engine.training.aims import Aim
from engine.training.checkpoints import steps
from engine.training.events import Evaluated, Event, Result, Saved, Started, Step, Warned
from engine.training.run import Run
from engine.training.settings import TrainSettings
from engine.training.train import resume, train
from engine.training.updates import Sums
from tests.engine.training.tiny_model import write_rows, write_tiny_model

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows") / "rows.jsonl", 60)


@pytest.fixture
def settings(model: Path, rows: Path) -> TrainSettings:
    return TrainSettings(
        data=str(rows), model=str(model), name="run", base="f32", tokens_per_step=256,
        learning_rate=1e-2, epochs=2, val_share=0.1, samples=0, max_in_memory_batches=3, threads=1,
    )  # fmt: skip


def weights(result: Result) -> dict[str, np.ndarray]:
    newest = next(iter(steps(result.run / "checkpoints")))
    from safetensors.numpy import load_file

    return {k: v for k, v in load_file(newest / "state.safetensors").items() if "weights" in k}


def losses(result: Result) -> dict[int, float]:
    return {e["step"]: e["loss"] for e in Run(result.run).history() if e["event"] == "step"}


def stopping_after(n_steps: int, events: list[Event]) -> Any:
    def should_stop() -> bool:
        return sum(isinstance(event, Step) for event in events) >= n_steps

    return should_stop


def test_a_model_learns_and_the_shell_gets_it(settings: TrainSettings, model: Path) -> None:
    events: list[Event] = []
    result = train(settings.changed(epochs=6, samples=2), on_event=events.append)
    assert result.finished and result.reason == "all rows are learned"
    assert result.best_loss is not None and result.first_val_loss is not None
    assert result.best_loss < result.first_val_loss / 2
    started = next(event for event in events if isinstance(event, Started))
    n_steps = sum(isinstance(event, Step) for event in events)
    assert result.step == n_steps and abs(started.n_steps - n_steps) <= 0.15 * n_steps
    last = [event for event in events if isinstance(event, Evaluated)][-1]
    assert len(last.samples) == 2 and last.samples[0].base != last.samples[0].now
    # the written adapter gives the loss that was measured
    loaded = engine.load(model, adapter=result.path)
    ids = loaded.tokenizer.encode_chat([{"role": "user", "content": "What is 4 and 49?"}])
    params = engine.SamplingParams(temperature=0.0, max_tokens=8)
    text = "".join(step.text for step in engine.stream(loaded, ids, params))
    assert text.startswith("It is ")


@pytest.mark.parametrize("method", ["full", "last_layers"])
def test_whole_weights_become_a_model_folder(settings: TrainSettings, method: str) -> None:
    changes = {"method": method, "learning_rate": 5e-3, "samples": 1, "sample_tokens": 8}
    events: list[Event] = []
    if method == "last_layers":
        changes["n_layers"] = 1
    result = train(settings.changed(epochs=4, **changes), on_event=events.append)
    assert result.path is not None and result.path.parent.name == "models"
    assert result.best_loss is not None and result.first_val_loss is not None
    assert result.best_loss < result.first_val_loss / 2
    assert all(event.samples for event in events if isinstance(event, Evaluated))
    loaded = engine.load(result.path)
    ids = loaded.tokenizer.encode_chat([{"role": "user", "content": "What is 4 and 49?"}])
    params = engine.SamplingParams(temperature=0.0, max_tokens=8)
    assert "".join(step.text for step in engine.stream(loaded, ids, params)).startswith("It is ")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"method": "full", "optimizer": "adamw8bit", "learning_rate": 1e-3, "weight_decay": 0.1},
        {"method": "full", "learning_rate": 1e-3, "dropout": 0.0},
        {"dropout": 0.3, "accumulate": 2},
        {"optimizer": "adamw8bit", "rank": 64, "epochs": 1},
        {"targets_per_step": 60, "clip": 0.1},
    ],
)
def test_a_stopped_run_goes_on_with_the_losses_of_one_that_was_not(
    settings: TrainSettings, changes: dict[str, Any]
) -> None:
    settings = settings.changed(evaluate_every=5, **changes)
    whole = train(settings.changed(name="whole"))
    n_stops = 0
    events: list[Event] = []
    result = train(settings, on_event=events.append, should_stop=stopping_after(1, events))
    while not result.finished:
        assert result.resume_command == "sparsechat train --resume run"
        n_stops += 1
        events = []
        result = resume("run", on_event=events.append, should_stop=stopping_after(3, events))
    assert n_stops >= 3
    assert losses(result) == pytest.approx(losses(whole), abs=1e-6)
    assert result.best_loss == pytest.approx(whole.best_loss, abs=1e-6)
    for name, values in weights(whole).items():
        np.testing.assert_allclose(weights(result)[name], values, atol=1e-6)


def test_an_evaluation_that_is_stopped_is_made_when_the_run_goes_on(
    settings: TrainSettings,
) -> None:
    settings = settings.changed(evaluate_every=3)
    whole = train(settings.changed(name="whole"))
    for at_step in (0, 3):  # before the first step, and in the middle of the run
        events: list[Event] = []
        is_asked = stopping_after(at_step, events)
        name = f"run-{at_step}"
        result = train(settings.changed(name=name), on_event=events.append, should_stop=is_asked)
        assert (result.step, result.reason) == (at_step, f"stopped at step {at_step}")
        result = resume(name)
        assert result.finished and losses(result) == pytest.approx(losses(whole), abs=1e-6)
        assert evaluated(result) == evaluated(whole)


def evaluated(result: Result) -> list[int]:
    return [e["step"] for e in Run(result.run).history() if e["event"] == "evaluated"]


def test_a_base_that_was_found_is_kept_when_a_run_goes_on(
    settings: TrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, asked = training.probe, []

    def probe(settings: TrainSettings, subject: Any, aim: Aim) -> Any:
        asked.append(settings.base)
        found = "int8" if settings.base == "auto" else settings.base
        return real(settings.changed(base=found), subject, aim)

    monkeypatch.setattr(training, "probe", probe)
    events: list[Event] = []
    train(
        settings.changed(base="auto"), on_event=events.append, should_stop=stopping_after(1, events)
    )
    resume("run")
    assert asked == ["auto", "int8"]


def test_a_torn_checkpoint_gives_way_to_the_one_before_it(settings: TrainSettings) -> None:
    settings = settings.changed(save_every=2)
    whole = train(settings.changed(name="whole"))
    events: list[Event] = []
    result = train(settings, on_event=events.append, should_stop=stopping_after(7, events))
    newest, before = steps(result.run / "checkpoints")
    assert (newest.name, before.name) == ("step-000007", "step-000006")
    with (newest / "state.safetensors").open("r+b") as file:
        file.truncate(1000)
    events = []
    result = resume(result.run, on_event=events.append)
    (warned,) = (event for event in events if isinstance(event, Warned))
    assert warned.text == (
        "step-000007 is damaged (state.safetensors is not what was written); going back to the "
        "checkpoint before it"
    )
    assert next(e for e in events if isinstance(e, Started)).first_step == 6
    assert losses(result) == pytest.approx(losses(whole), abs=1e-6)


def test_a_run_without_a_whole_checkpoint_begins_again(settings: TrainSettings) -> None:
    whole = train(settings.changed(name="whole"))
    events: list[Event] = []
    result = train(settings, on_event=events.append, should_stop=stopping_after(3, events))
    for path in steps(result.run / "checkpoints"):
        (path / "state.json").write_text("{}")
    result = resume(result.run)
    assert losses(result) == pytest.approx(losses(whole), abs=1e-6)


def disturbed(monkeypatch: pytest.MonkeyPatch, losses_of: dict[int, float]) -> None:
    """The loss of these calls, from 1, is another one."""
    real, calls = training.gradients, 0

    def gradients(*args: Any) -> Sums:
        nonlocal calls
        calls += 1
        sums = real(*args)
        return sums._replace(loss=losses_of[calls]) if calls in losses_of else sums

    monkeypatch.setattr(training, "gradients", gradients)


def test_steps_without_a_number_or_with_a_spike_are_left_out(
    settings: TrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    disturbed(monkeypatch, {3: math.nan, 11: 50.0, 12: math.inf})
    events: list[Event] = []
    result = train(settings, on_event=events.append)
    skipped = {e.step: e.skipped for e in events if isinstance(e, Step) and e.skipped}
    assert skipped.keys() == {3, 11, 12} and "is a spike" in skipped[11]
    assert result.finished and result.n_skipped == 3
    assert all(np.isfinite(values).all() for values in weights(result).values())


def test_a_run_of_bad_steps_stops_and_is_not_saved(
    settings: TrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    disturbed(monkeypatch, dict.fromkeys(range(6, 100), math.nan))
    events: list[Event] = []
    result = train(settings.changed(save_every=1), on_event=events.append)
    assert not result.finished and result.path is None and result.n_skipped == 3
    assert result.reason.startswith("stopped at step 8: 3 steps in a row were skipped, the last")
    assert max(event.step for event in events if isinstance(event, Saved)) == 7


def test_a_loss_that_is_no_number_is_never_the_best(
    settings: TrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = sessions.evaluate
    monkeypatch.setattr(sessions, "evaluate", lambda *args: real(*args)._replace(loss=math.nan))
    events: list[Event] = []
    result = train(settings, on_event=events.append)
    assert result.best_loss is None
    assert not any(e.is_best for e in events if isinstance(e, Evaluated))
    assert not (result.run / "best").exists()


def test_patience_ends_a_run(settings: TrainSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    real, n = sessions.evaluate, 0

    def worse(*args: Any) -> Any:
        nonlocal n
        n += 1
        return real(*args)._replace(loss=float(n))

    monkeypatch.setattr(sessions, "evaluate", worse)
    result = train(settings.changed(evaluate_every=2, patience=2))
    assert result.step == 4 and result.best_step == 0
    assert result.reason == "the held-out loss did not fall for 2 evaluations"


def test_max_steps_end_a_run_and_its_schedule(settings: TrainSettings) -> None:
    events: list[Event] = []
    result = train(settings.changed(max_steps=4, warmup=0.25), on_event=events.append)
    rates = [event.learning_rate for event in events if isinstance(event, Step)]
    half = (1 + math.cos(math.pi / 3)) / 2
    assert rates == pytest.approx([1e-2, 1e-2, 1e-2 * half, 1e-2 * (1 - half)])
    assert result.finished and result.reason == "max_steps 4 are made"


def test_evaluations_by_epoch(settings: TrainSettings) -> None:
    events: list[Event] = []
    train(settings.changed(evaluate_every=0, epochs=3, accumulate=2), on_event=events.append)
    at = [event.step for event in events if isinstance(event, Evaluated)]
    ends = [e.step for e in events if isinstance(e, Step) and e.epoch in (1.0, 2.0, 3.0)]
    assert at == [0, *ends]


def test_settings_that_do_not_fit_leave_nothing(settings: TrainSettings, home: Path) -> None:
    for changes, message in (
        ({"data": "nowhere.jsonl"}, "nowhere.jsonl"),
        ({"max_seq_len": 1000}, "max_seq_len 1,000 is beyond the 512 tokens of the model"),
        ({"max_seq_len": 400}, "max_seq_len 400 does not fit into batches of 256 tokens"),
        ({"name": "a/b"}, "a run is named with letters"),
        ({"targets": "wx"}, "unknown target 'wx'"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            train(settings.changed(**changes))
    assert not list((home / "data" / "runs").glob("*"))


def test_a_name_is_taken_once(settings: TrainSettings) -> None:
    train(settings.changed(max_steps=1))
    with pytest.raises(ValueError, match="a run run is there already"):
        train(settings)


def test_changed_data_cannot_be_gone_on_with(settings: TrainSettings, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.jsonl", 30)
    result = train(settings.changed(data=str(data), max_steps=2))
    write_rows(data, 31)
    with pytest.raises(ValueError, match="the data of run run changed since it began"):
        resume(result.run)


def test_settings_are_kept_with_paths_that_hold_elsewhere(
    settings: TrainSettings, rows: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(rows.parent)
    events: list[Event] = []
    result = train(
        settings.changed(data="rows.jsonl:2"),
        on_event=events.append,
        should_stop=stopping_after(2, events),
    )
    kept = json.loads((result.run / "settings.json").read_text())["settings"]["data"]
    assert kept == f"{rows}:2.0"
    monkeypatch.chdir(tmp_path)
    assert resume(result.run).finished


def test_short_memory_is_refused(settings: TrainSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.training import probe

    monkeypatch.setattr(probe, "available_bytes", lambda: 1000)
    with pytest.raises(ValueError, match=r"memory is short: training takes about .* raise accum"):
        train(settings)
