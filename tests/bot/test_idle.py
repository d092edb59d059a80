"""What the worker does while nobody asks."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import pytest

from bot.idle import IdleTrial
from tests.fakes import FakeModel


class Tasks:
    """A worker whose tasks are run one by one by the test."""

    def __init__(self) -> None:
        self.waiting: list[Any] = []

    def submit(self, work: Any) -> Future[Any]:
        self.waiting.append(work)
        return Future()

    def run_one(self) -> None:
        self.waiting.pop(0)()


class Trial:
    """Three parts."""

    def __init__(self, model: FakeModel) -> None:
        self.done = 0

    def step(self) -> float:
        self.done += 1
        return self.done / 3


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> Tasks:
    monkeypatch.setattr("engine.Trial", Trial, raising=False)
    return Tasks()


def test_other_work_comes_between_the_parts_and_the_level_is_set_at_the_end(tasks: Tasks) -> None:
    model, order = FakeModel(), []
    trial = IdleTrial(tasks, model)  # type: ignore[arg-type]
    trial.start()
    tasks.run_one()
    tasks.waiting.insert(0, lambda: order.append("an answer"))
    tasks.run_one()
    assert order == ["an answer"] and model.levels == [] and trial.is_running
    tasks.run_one()
    tasks.run_one()
    assert model.levels == ["off"] and not tasks.waiting and not trial.is_running


def test_a_trial_that_is_stopped_makes_no_further_part(tasks: Tasks) -> None:
    model = FakeModel()
    trial = IdleTrial(tasks, model)  # type: ignore[arg-type]
    trial.start()
    tasks.run_one()
    trial.stop()
    tasks.run_one()
    assert not tasks.waiting and model.levels == []


def test_a_failure_leaves_the_model_as_it_is(tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: Trial) -> float:
        raise OSError("disk full")

    monkeypatch.setattr(Trial, "step", fails)
    model = FakeModel()
    trial = IdleTrial(tasks, model)  # type: ignore[arg-type]
    trial.start()
    tasks.run_one()
    assert not tasks.waiting and model.levels == [] and not trial.is_running
