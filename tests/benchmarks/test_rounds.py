"""Who is asked when; no model and no process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from benchmarks import rounds
from benchmarks.machine import Load
from benchmarks.options import Options
from benchmarks.process import WorkerError
from benchmarks.rounds import Sides, Task, prefers_flash_attention

TASK = Task("decode", Path("tiny.gguf"), 2, n_tokens=64, position=100)
SECONDS = {"benchmarks.engine_driver": 0.5, "benchmarks.llama_driver": 2.0}


class FakeWorker:
    """Remembers what it was asked; the peer may fail at its n-th timed action."""

    log: ClassVar[list[tuple[str, str]]] = []
    loads: ClassVar[list[dict[str, Any]]] = []
    foreign: ClassVar[list[float]] = []  # percent, of the next answers
    fails_at: ClassVar[int | None] = None
    faster_with_flash: ClassVar[bool] = True

    def __init__(self, python: object, module: str, variables: object = None) -> None:
        self.module = module
        self.n_asked = 0
        self.flash: bool | None = None

    def __enter__(self) -> FakeWorker:
        return self

    def __exit__(self, *_: object) -> None:
        self.log.append((self.module, "closed"))

    def ask(self, action: str, **arguments: Any) -> dict[str, Any]:
        self.log.append((self.module, action))
        if action == "load":
            self.loads.append(arguments)
            self.flash = arguments.get("flash_attention")
            return {"bytes_per_token": 10}
        self.n_asked += 1
        if self.module.endswith("llama_driver") and self.n_asked == self.fails_at:
            raise WorkerError("llama_driver decode: ended with code 9: no message")
        seconds = SECONDS[self.module] / (2 if self.flash == self.faster_with_flash else 1)
        return {"seconds": seconds, "load": [self.foreign.pop(0) if self.foreign else 1.0, 0.0]}


@pytest.fixture(autouse=True)
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FakeWorker]]:
    monkeypatch.setattr(rounds, "Worker", FakeWorker)
    monkeypatch.setattr(rounds.peers, "find", lambda name: Path("python"))
    yield FakeWorker
    FakeWorker.log.clear()
    FakeWorker.loads.clear()
    FakeWorker.foreign.clear()
    FakeWorker.fails_at, FakeWorker.faster_with_flash = None, True


def options(**changes: Any) -> Options:
    values: dict[str, Any] = {
        "name": "decode", "label": "tiny", "model": TASK.path, "formats": ("stored",),
        "peer": "llama", "quick": False, "save": False, "threads": (2,), "rounds": 3,
    }  # fmt: skip
    return Options(**(values | changes))


def test_sides_are_asked_in_turns_and_who_begins_changes(worker: type[FakeWorker]) -> None:
    with Sides(TASK, options(), flash_attention=False) as sides:
        took = list(sides.rounds(3))
    asked = [module.rpartition(".")[2] for module, action in worker.log if action == "decode"]
    ours, theirs = "engine_driver", "llama_driver"
    assert asked == [ours, theirs, ours, theirs, theirs, ours, ours, theirs]  # a warm-up first
    assert took == [rounds.Round(0.5, 2.0, (Load(1, 0), Load(1, 0)))] * 3
    assert took[0].rates(64) == (128, 32)


def test_disturbed_round_is_made_again(worker: type[FakeWorker]) -> None:
    worker.foreign += [1, 1, 1, 80]  # the warm-up of both sides, then a first round
    with Sides(TASK, options(), flash_attention=None) as sides:
        took = list(sides.rounds(2))
    assert [[load.foreign_percent for load in r.loads] for r in took] == [[1, 1], [1, 1]]
    assert [action for _, action in worker.log].count("decode") == 2 + 2 * 3


def test_busy_machine_does_not_hold_up_a_run_for_ever(worker: type[FakeWorker]) -> None:
    worker.foreign += [90] * 100
    with Sides(TASK, options(), flash_attention=None) as sides:
        assert all(r.is_disturbed for r in sides.rounds(2))
    assert [action for _, action in worker.log].count("decode") == 2 + 2 * (2 + 4)


def test_quick_run_takes_what_it_gets(worker: type[FakeWorker]) -> None:
    worker.foreign += [90] * 100
    with Sides(TASK, options(quick=True), flash_attention=None) as sides:
        assert len(list(sides.rounds(2))) == 2
    assert [action for _, action in worker.log].count("decode") == 2 + 2 * 2


def test_both_sides_get_the_same_tokens_and_threads(worker: type[FakeWorker]) -> None:
    with Sides(TASK, options(), flash_attention=True):
        pass
    ours, theirs = worker.loads
    assert ours == {"path": "tiny.gguf", "threads": 2}
    assert theirs == ours | {"context": 256, "flash_attention": True, "beams": 1}
    with Sides(TASK, options(kv_cache="q8"), flash_attention=True):
        pass
    ours, theirs = worker.loads[2:]
    assert ours["kv_cache"] == "q8" and "kv_cache" not in theirs
    assert TASK.arguments() == TASK.arguments()
    assert len(TASK.arguments(7)["token_ids"]) == 7


def test_ours_goes_on_alone_when_the_peer_fails(
    worker: type[FakeWorker], capsys: pytest.CaptureFixture[str]
) -> None:
    worker.fails_at = 3  # the warm-up, one round, then this
    with Sides(TASK, options(), flash_attention=None) as sides:
        took = list(sides.rounds(3))
    assert [r.peer for r in took] == [2, None, None]
    assert [r.rates(64)[1] for r in took] == [32, None, None]
    assert capsys.readouterr().err == (
        "llama.cpp is left out: llama_driver decode: ended with code 9: no message\n"
    )


def test_ours_is_measured_without_a_peer(worker: type[FakeWorker]) -> None:
    with Sides(TASK, options(peer=None), flash_attention=None) as sides:
        took = list(sides.rounds(2))
    assert [r.peer for r in took] == [None, None]
    assert {module for module, _ in worker.log} == {"benchmarks.engine_driver"}


def test_tasks_of_several_widths_run_in_turns_in_the_same_processes(
    worker: type[FakeWorker],
) -> None:
    wide = TASK._replace(action="beams", width=4)
    with Sides(wide, options(peer=None), flash_attention=None) as sides:
        both = (sides.rounds(2, task) for task in (TASK, wide))
        assert len(list(zip(*both, strict=True))) == 2
    timed = [action for _, action in worker.log if action in ("decode", "beams")]
    assert timed == ["decode", "decode", "beams", "beams", "decode", "beams"]  # warm-ups first
    assert worker.loads[0].keys() == {"path", "threads"}
    assert wide.arguments()["width"] == 4


def test_context_has_room_for_the_tokens_of_all_beams() -> None:
    assert TASK.context == 256
    assert TASK._replace(width=4).context == 512


def test_task_that_names_its_attention_is_not_tried_out(worker: type[FakeWorker]) -> None:
    tasks = [("one", TASK._replace(flash_attention=True))]
    for _, _, sides in rounds.periods(tasks, options()):
        assert sides.flash_attention is True
    assert len(worker.loads) == 2  # one of each side


@pytest.mark.parametrize("faster", [True, False])
def test_peer_runs_with_the_attention_that_is_faster_for_it(
    worker: type[FakeWorker], faster: bool
) -> None:
    worker.faster_with_flash = faster
    assert prefers_flash_attention(TASK, options()) is faster


def test_every_period_visits_all_tasks_with_new_processes(worker: type[FakeWorker]) -> None:
    tasks = [("one", TASK), ("two", TASK._replace(threads=1))]
    seen = [
        (period, task.threads)
        for period, task, _ in rounds.periods(tasks, options(quick=True, periods=2))
    ]
    assert seen == [(0, 2), (0, 1), (1, 2), (1, 1)]
    closed = [module for module, action in worker.log if action == "closed"]
    assert closed.count("benchmarks.engine_driver") == 4
