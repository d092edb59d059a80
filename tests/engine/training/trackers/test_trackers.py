"""Trackers. The packages of wandb, tensorboard and trackio are not among this project's: their
tests run where they are installed."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from loguru import logger

from engine.training import trackers
from engine.training.events import Evaluated, Event, Saved, Step, Warned
from engine.training.trackers import Trackers, check_trackers, tracker_names

STEP = Step(
    step=3, n_steps=20, loss=1.5, learning_rate=2e-4, tokens_per_s=480.0, eta_s=35.0,
    memory_bytes=900_000_000, grad_norm=0.7, n_tokens=2040, n_targets=1200, accuracy=0.5,
    epoch=0.15, skipped="",
)  # fmt: skip
EVALUATED = Evaluated(3, 1.25, 3.49, 0.61, True, ())
EVENTS: list[Event] = [STEP, Saved(3, Path("checkpoints/step-000003")), EVALUATED]


@dataclass(frozen=True)
class FakeSettings:
    rank: int = 16
    targets: str = "all"


@dataclass(frozen=True)
class FakeRun:
    folder: Path
    name: str = "first"
    settings: FakeSettings = FakeSettings()


@pytest.fixture
def run(tmp_path: Path) -> FakeRun:
    folder = tmp_path / "first"
    folder.mkdir()
    return FakeRun(folder)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logger.remove()
    yield
    logger.remove()


def tell(run: FakeRun, names: list[str], events: list[Event]) -> None:
    told = Trackers(names, run)
    for event in events:
        told.log(event)
    told.close()


def test_names_are_files_of_the_folder() -> None:
    assert trackers.TRACKERS == ("loguru", "print", "tensorboard", "trackio", "wandb")


def test_several_names_stand_with_commas_between_them() -> None:
    assert tracker_names("print, wandb,print,") == ["print", "wandb"]
    assert tracker_names("") == []


@pytest.mark.parametrize(
    ("text", "hint"),
    [("wanb", "did you mean 'wandb'?"), ("print,x", "there are loguru, print, tensorboard, ")],
)
def test_a_name_that_there_is_not_is_refused(text: str, hint: str) -> None:
    with pytest.raises(ValueError, match="no train_log_backend is called") as error:
        tracker_names(text)
    assert hint in str(error.value)


@pytest.mark.parametrize("name", ["wandb", "tensorboard", "trackio"])
def test_a_missing_package_is_one_line_with_the_pip_command(
    name: str, monkeypatch: pytest.MonkeyPatch, run: FakeRun
) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda package: None)
    with pytest.raises(ValueError, match=rf"needs the package {name}.*pip install {name}$"):
        Trackers(["print", name], run)


def test_a_check_imports_no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda package: ModuleSpec(package, None))
    monkeypatch.setitem(sys.modules, "wandb", None)  # importing it would raise
    check_trackers(["wandb", "print"])


def test_print_writes_a_line_per_figure_to_stderr(
    run: FakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    tell(run, ["print"], [*EVENTS, STEP._replace(step=4, skipped="its loss is a spike")])
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "step 3/20 · loss 1.5000 · lr 2.00e-04 · 480 tok/s",
        "step 3 · held-out loss 1.2500 · perplexity 3.49 · accuracy 61.0 % · best so far",
        "step 4/20 · loss 1.5000 · lr 2.00e-04 · 480 tok/s · skipped: its loss is a spike",
    ]


def test_loguru_appends_to_a_file_of_the_run(run: FakeRun) -> None:
    tell(run, ["loguru"], EVENTS)
    logger.info("of something else")
    tell(run, ["loguru"], [Warned("step 5 was skipped")])
    lines = (run.folder / "loguru.log").read_text().splitlines()
    assert [line.split(" - ", 1)[1] for line in lines] == [
        "step 3/20 · loss 1.5000 · lr 2.00e-04 · 480 tok/s",
        "step 3 · held-out loss 1.2500 · perplexity 3.49 · accuracy 61.0 % · best so far",
        "step 5 was skipped",
    ]


def test_a_tracker_that_fails_is_left_out_and_the_others_go_on(
    run: FakeRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Unreachable:
        def log(self, event: Event) -> None:
            raise OSError("no route to host")

        def close(self) -> None:
            raise AssertionError("it was left out before")

    broken: Any = ModuleType("broken")
    broken.PACKAGE, broken.open_tracker = None, lambda run: Unreachable()
    monkeypatch.setitem(sys.modules, f"{trackers.__name__}.trackio", broken)
    warned: list[str] = []
    told = Trackers(["trackio", "print"], run, warned.append)
    told.log(STEP)
    told.log(STEP)
    told.close()
    assert warned == ["trackio gets no more figures: no route to host"]
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_tensorboard_keeps_scalars_in_the_run_folder(run: FakeRun) -> None:
    pytest.importorskip("tensorboard")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own dependencies
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        tell(run, ["tensorboard"], [*EVENTS, STEP._replace(step=4, loss=math.nan)])
        read = EventAccumulator(str(run.folder / "tensorboard"))
        read.Reload()
    assert [(s.step, s.value) for s in read.Scalars("train/loss")] == [(3, 1.5)]
    assert [(s.step, s.value) for s in read.Scalars("val/loss")] == [(3, 1.25)]
    assert [s.step for s in read.Scalars("train/tokens_per_s")] == [3, 4]


def test_wandb_without_a_login_writes_an_offline_run_into_the_run_folder(
    run: FakeRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("wandb")
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # no .netrc
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tell(run, ["wandb"], EVENTS)
    (offline,) = (run.folder / "wandb").glob("offline-run-*")
    (records,) = offline.glob("*.wandb")
    content = records.read_bytes()
    assert offline.name.rpartition("-")[0].endswith("-first")
    for figure in (b"train/loss", b"val/perplexity", b"targets"):
        assert figure in content


def test_trackio_keeps_figures_on_this_machine_and_off_stdout(
    run: FakeRun,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read when it is imported
    pytest.importorskip("trackio")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tell(run, ["trackio"], EVENTS)
    assert list((tmp_path / "trackio").glob("sparsechat*"))
    assert capsys.readouterr().out == ""
