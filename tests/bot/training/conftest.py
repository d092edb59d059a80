"""`sparsechat train` in this process, on a loop by script that writes real run folders."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bot.__main__ import main
from engine.training.events import Evaluated, Event, Finished, Result, Sample, Started, Step
from engine.training.run import Run, runs_dir
from engine.training.settings import TrainSettings
from tests.fakes import FakeEngine, FakeModel

Run_ = Callable[..., tuple[int, str, str]]
SAMPLE = Sample(
    "<|im_start|>user\nWho are you?<|im_end|>\n<|im_start|>assistant\n", "Nobody.", "Me."
)


def step(number: int, n_steps: int, **more: Any) -> Step:
    """Losses fall by 0.1 a step."""
    values: dict[str, Any] = dict(
        step=number, n_steps=n_steps, loss=2.0 - number / 10, learning_rate=2e-4,
        tokens_per_s=480.0, eta_s=4.0 * (n_steps - number), memory_bytes=1_920_000_000,
        grad_norm=0.5, n_tokens=2000, n_targets=900, accuracy=0.5, epoch=number / n_steps,
        skipped="",
    )  # fmt: skip
    return Step(**values | more)


@dataclass
class FakeTraining:
    """engine.training.train: an evaluation before the first step and after every second one.

    during      called before each step with its number
    skipped     steps that are skipped, and why
    begun       settings of the runs that were begun; resumed: folders
    """

    during: Callable[[int], None] | None = None
    skipped: dict[int, str] = field(default_factory=dict)
    n_steps: int = 4
    begun: list[TrainSettings] = field(default_factory=list)
    resumed: list[Path] = field(default_factory=list)

    def train(
        self,
        settings: TrainSettings,
        *,
        on_event: Callable[[Event], None],
        should_stop: Callable[[], bool],
    ) -> Result:
        self.begun.append(settings)
        run = Run(runs_dir() / settings.name)
        with run.owned():
            run.require_new()
            run.begin(settings, "d", "m")
            return self._loop(run, 0, on_event, should_stop)

    def resume(
        self, folder: Path, *, on_event: Callable[[Event], None], should_stop: Callable[[], bool]
    ) -> Result:
        self.resumed.append(folder)
        run = Run(folder)
        last = max(line["step"] for line in run.history() if line["event"] == "step")
        with run.owned():
            return self._loop(run, last, on_event, should_stop)

    def _loop(
        self, run: Run, first: int, on_event: Callable[[Event], None], stops: Callable[[], bool]
    ) -> Result:
        def tell(event: Event) -> None:
            run.write(event)
            on_event(event)

        n, reason, finished = self.n_steps, "all rows are learned", True
        tell(Started(run.folder, n, first, 390, 10, 4_884_480, 134_479_872, "int8", 0.9925, 480.0,
                     16.0, 1_920_000_000))  # fmt: skip
        if not first:
            tell(Evaluated(0, 2.0, 7.39, 0.4, True, (SAMPLE,)))
        number = first
        while number < n:
            number += 1
            if self.during is not None:
                self.during(number)
            tell(step(number, n, skipped=self.skipped.get(number, "")))
            if number % 2 == 0:
                tell(Evaluated(number, 2.0 - number / 20, 6.5, 0.5, True, (SAMPLE,)))
            if stops():
                (run.checkpoints / f"step-{number:06}").mkdir(parents=True)
                reason, finished = f"stopped at step {number}", False
                break
        path = run.folder.parents[1] / "adapters" / run.name if finished else None
        if path is not None:
            path.mkdir(parents=True)
            (path / "adapter_config.json").write_text("{}")
        result = Result(finished, reason, run.folder, path, number, 1.6, 2.0, 2.0 - number / 20,
                        number, len(self.skipped), 16.0, run.resume_command)  # fmt: skip
        tell(Finished(result))
        return result


@pytest.fixture
def training(home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeTraining:
    """The loop by script; there is a model "tiny", and oig.jsonl in the working folder."""
    fake: Any = ModuleType("engine.training.train")
    script = FakeTraining()
    fake.train, fake.resume = script.train, script.resume
    monkeypatch.setitem(sys.modules, "engine.training.train", fake)
    FakeEngine({"tiny": FakeModel(), "other": FakeModel()}).install_in(monkeypatch.setitem)
    monkeypatch.setenv("SPARSECHAT_MODEL", "tiny")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "oig.jsonl").write_text('{"text": "<human>: Hi\\n<bot>: Hello."}\n' * 3)
    return script


@pytest.fixture
def train(training: FakeTraining, capsys: pytest.CaptureFixture[str]) -> Run_:
    """Runs `sparsechat train`: (exit code, stdout, stderr)."""

    def run(*words: str) -> tuple[int, str, str]:
        code = main(["train", *words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
