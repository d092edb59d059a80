"""A driver in a process of its own: answers, failures, noise."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import process
from benchmarks.process import Worker, WorkerError

DRIVER = """
import os, sys, time
from benchmarks.process import serve

def add(a, b):
    print("a library that talks")
    return {"sum": a + b}

def fail():
    raise ValueError("no such file\\nand more")

def die():
    sys.stderr.write("Fatal: out of luck\\n")
    sys.stderr.flush()
    os._exit(3)

serve({"add": add, "fail": fail, "die": die, "sleep": lambda: time.sleep(60)})
"""


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Worker]:
    """Start a driver that lies outside the repository."""
    (tmp_path / "driver.py").write_text(DRIVER)
    (tmp_path / "benchmarks").symlink_to(process.ROOT / "benchmarks")
    monkeypatch.setattr(process, "ROOT", tmp_path)
    return lambda: Worker(sys.executable, "driver")


def test_driver_answers_although_its_libraries_print(worker: Callable[[], Worker]) -> None:
    with worker() as side:
        assert side.ask("add", a=1, b=2) == {"sum": 3}
        assert side.ask("add", a=3, b=4) == {"sum": 7}


def test_error_of_an_action_is_one_line_and_the_driver_lives(
    worker: Callable[[], Worker],
) -> None:
    with worker() as side:
        with pytest.raises(WorkerError, match=r"^driver fail: ValueError: no such file$") as failed:
            side.ask("fail")
        assert "in fail" in failed.value.details
        assert side.ask("add", a=1, b=1) == {"sum": 2}


def test_end_of_a_driver_is_told_with_its_last_words(worker: Callable[[], Worker]) -> None:
    with worker() as side:
        with pytest.raises(WorkerError, match=r"^driver die: ended with code 3: Fatal: out of"):
            side.ask("die")
        with pytest.raises(WorkerError, match="ended with code 3"):
            side.ask("add", a=1, b=1)


def test_driver_that_hangs_is_given_up(worker: Callable[[], Worker]) -> None:
    with worker() as side, pytest.raises(WorkerError, match=r"driver sleep: no answer in 0 s"):
        side.ask("sleep", deadline_s=0.3)


def test_script_whose_own_side_fails_ends_with_the_traceback_and_one_line() -> None:
    def main() -> None:
        raise WorkerError("engine_driver load: ValueError: no", "Traceback: line 1")

    with pytest.raises(SystemExit) as ended:
        process.run(main)
    assert ended.value.code == "Traceback: line 1\nengine_driver load: ValueError: no"
