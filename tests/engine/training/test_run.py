"""The folder of a run: one owner, no lines from a future that did not happen."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from engine.training.events import Evaluated, Sample, Step, Warned
from engine.training.run import Run, RunInUseError, describe, require_name
from engine.training.settings import TrainSettings

SETTINGS = TrainSettings(data="a", model="b", name="one")


def step(number: int, loss: float = 1.5) -> Step:
    return Step(number, 10, loss, 1e-4, 100.0, 9.0, 1 << 20, 0.5, 64, 32, 0.1, "", 0.25)


def test_settings_are_written_once(tmp_path: Path) -> None:
    run = Run(tmp_path / "one")
    with run.owned():
        run.begin(SETTINGS, "data", "model")
    assert run.settings() == SETTINGS
    assert set(run.read()["versions"]) == {"sparsechat", "torch", "numba", "numpy", "tokenizers"}
    with pytest.raises(ValueError, match=r"a run one is there already .*--resume one` goes on"):
        run.require_new()


def test_nothing_is_left_of_a_run_that_did_not_begin(tmp_path: Path) -> None:
    run = Run(tmp_path / "one")
    with pytest.raises(ValueError, match="no data"), run.owned():
        raise ValueError("no data")
    assert not run.folder.exists()


def test_two_processes_cannot_train_one_run(tmp_path: Path) -> None:
    run = Run(tmp_path / "one")
    code = (
        "from pathlib import Path; from engine.training.run import Run; import sys\n"
        f"with Run(Path({str(run.folder)!r})).owned():\n print('held', flush=True)\n input()"
    )
    root = Path(__file__).parents[3]
    other = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root
    )
    assert other.stdin is not None and other.stdout is not None
    try:
        assert other.stdout.readline().strip() == b"held"
        with pytest.raises(RunInUseError, match=f"run one is being trained: .*process {other.pid}"):
            with run.owned():
                pass
    finally:
        other.kill()
        other.communicate()
    with run.owned():  # its owner is gone
        pass


def test_going_back_forgets_what_will_happen_again(tmp_path: Path) -> None:
    run = Run(tmp_path)
    for number in range(1, 6):
        run.write(step(number))
        run.write(Evaluated(number, 1.0, math.e, 0.5, True, (Sample("p", "b", "n"),)))
    with run.metrics.open("a") as file:
        file.write('{"step": 6, "lo')  # torn by a crash
    run.go_back(3)
    run.write(step(4, 1.25))
    found = [(line["event"], line["step"]) for line in run.history()]
    assert found == [*((kind, n) for n in (1, 2, 3) for kind in ("step", "evaluated")), ("step", 4)]
    assert [json.loads(line)["step"] for line in run.samples.read_text().splitlines()] == [1, 2, 3]


def test_numbers_that_are_none_are_null(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.write(step(1, math.nan))
    assert json.loads(run.metrics.read_text())["loss"] is None


def test_the_log_is_for_people(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.write(step(3)._replace(skipped="the loss is nan"))
    run.write(Warned("the disk is full"))
    lines = run.log.read_text().splitlines()
    assert lines[0].endswith("step 3/10  loss 1.5000  rate 1.00e-04  norm 0.500  100 tokens/s  "
                             "skipped: the loss is nan")  # fmt: skip
    assert lines[1].endswith(describe(Warned("the disk is full")))


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "x" * 101, "a b"])
def test_names_are_names_of_folders(name: str) -> None:
    with pytest.raises(ValueError, match="a run is named with letters"):
        require_name(name)


def test_other_data_or_another_model_are_noticed(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.begin(SETTINGS, "data", "model")
    run.require_same("data", "model")
    with pytest.raises(ValueError, match=r"the data of run .* changed since it began"):
        run.require_same("other", "model")
    with pytest.raises(ValueError, match="the model of run"):
        run.require_same("data", "other")


def test_damaged_settings_are_one_line(tmp_path: Path) -> None:
    run = Run(tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match="there is no run gone"):
        run.settings()
    run.folder.mkdir()
    run.settings_file.write_text("{")
    with pytest.raises(ValueError, match=r"settings.json is damaged: Expecting"):
        run.settings()
    run.settings_file.write_text("{}")
    with pytest.raises(ValueError, match=r"settings.json is damaged: it has no settings"):
        run.settings()
