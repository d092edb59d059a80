"""`sparsechat train sparsify`, in this process, on a run by script."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bot.__main__ import main
from bot.training.actions import sparsify as action
from data.files import private_folder
from engine.training.events import Result
from engine.training.run import runs_dir
from engine.training.settings import TrainSettings
from engine.training.sparsify.outcome import ANSWERS, REPORT, Report
from engine.training.sparsify.settings import SparsifySettings
from tests.bot.training.conftest import FakeTraining

Act = Callable[..., tuple[int, str, str]]
FOUND = Report(420, 0.031, 0.012, 0.93, [0.25, 0.35], [0.5, 0.6], 120.0, 100.0, 130.0)


class FakeSparsify:
    """sparsifying.sparsify: two texts of its own, then the run by script and a report."""

    def __init__(self, training: FakeTraining) -> None:
        self.training = training
        self.begun: list[tuple[TrainSettings, SparsifySettings]] = []
        self.stops_early = False

    def __call__(
        self, settings: TrainSettings, own: SparsifySettings, *, on_answer: Any, **hears: Any
    ) -> Result | None:
        self.begun.append((settings, own))
        folder = private_folder(runs_dir() / settings.name)
        if not settings.data:
            on_answer(0, 2)
            (folder / ANSWERS).write_text("{}\n")
            if self.stops_early:
                return None
            on_answer(2, 2)
        result = self.training.train(settings, **hears)
        (folder / REPORT).write_text(json.dumps(FOUND._asdict()))
        return result


@pytest.fixture
def script(training: FakeTraining, monkeypatch: pytest.MonkeyPatch) -> FakeSparsify:
    fake: Any = ModuleType("engine.training.sparsify.sparsifying")
    fake.sparsify = FakeSparsify(training)
    monkeypatch.setitem(sys.modules, "engine.training.sparsify.sparsifying", fake)
    found: FakeSparsify = fake.sparsify
    return found


@pytest.fixture
def act(script: FakeSparsify, capsys: pytest.CaptureFixture[str]) -> Act:
    def run(*words: str) -> tuple[int, str, str]:
        code = main(["train", "sparsify", *words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_a_model_is_taught_with_its_own_texts_and_the_report_is_shown(
    act: Act, script: FakeSparsify
) -> None:
    code, out, err = act("--goal", "0.65", "--threads", "1")
    assert (code, out) == (0, "")
    settings, own = script.begun[0]
    assert (settings.name, settings.data, settings.method) == ("tiny-sparse", "", "feed_forward")
    assert settings.learning_rate == 2e-4 and settings.threads == 1 and settings.base == "f32"
    assert own == SparsifySettings(goal=0.65)
    assert err.splitlines()[-5:] == [
        f"tiny-sparse: finished, all rows are learned: 4 steps; {_result_path()}",
        "feed-forwards: 70.0% of the neurons left out, rows of `up` not read 45.0%; "
        "active by layer:",
        "   25 %   35 %",
        "against the original, 420 tokens of held-out answers: exp(KL) - 1 = 3.10% with sparsity, "
        "1.20% without; the same word likeliest at 93.0%",
        "decoding: 130 tokens/s with sparsity, 100 without (1.30x), 120 the original",
    ]


def test_rows_of_ones_own_and_flags_of_any_run(act: Act, script: FakeSparsify) -> None:
    act("oig.jsonl", "--method", "lora", "--rank", "4", "--name", "mine", "--control")
    settings, own = script.begun[0]
    assert Path(settings.data).name == "oig.jsonl" and settings.rank == 4
    assert (settings.name, settings.learning_rate) == ("mine", 5e-4)
    assert own.control


def test_texts_that_were_begun_are_gone_on_with_under_the_same_name(
    act: Act, script: FakeSparsify
) -> None:
    script.stops_early = True
    code, _, err = act()
    assert code == 130 and "tiny-sparse: stopped; the same command goes on" in err
    script.stops_early = False
    act()
    act()
    assert [settings.name for settings, _ in script.begun] == [
        "tiny-sparse", "tiny-sparse", "tiny-sparse-2",
    ]  # fmt: skip


def test_the_result_as_json_has_the_report(act: Act) -> None:
    _, out, _ = act("--json")
    record = json.loads(out)
    assert record["finished"] and record["report"]["drift"] == 0.012


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--goal", "0.99"], "goal must be in [0.05, 0.95], got 0.99"),
        (["--ramp", "0.9"], "fixed 0.7 lies before ramp 0.9"),
        (["a", "b"], "one DATA at a time; to mix them: a,b"),
        (["--rank", "0"], "rank must be in [1, 4096], got 0"),
    ],
)
def test_what_does_not_fit_is_a_usage_error(act: Act, words: list[str], message: str) -> None:
    code, _, err = act(*words)
    assert code == 2 and message in err


def test_every_setting_has_a_flag() -> None:
    assert set(action.HELPS) == {field.name for field in fields(SparsifySettings)}


def _result_path() -> Path:
    return runs_dir().parent / "adapters" / "tiny-sparse"
