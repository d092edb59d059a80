"""Which steps are compared, on a side that takes as long as it has beams."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from benchmarks import beams
from benchmarks.bandwidth import Bandwidth
from benchmarks.machine import Load
from benchmarks.options import Options
from benchmarks.rounds import Round, Task

PATH = Path("tiny.Q4_0.gguf")


class FakeSides:
    """One millisecond a step and half of one for each beam beyond the first; the peer twice."""

    ours_loaded: ClassVar[dict[str, Any]] = {
        "bytes_per_token": 1_000_000, "bytes_per_position": 1_000,
        "multiplications": 900_000, "head_multiplications": 100_000,
    }  # fmt: skip
    log: ClassVar[list[int | None]] = []

    def rounds(self, n: int, task: Task) -> Iterator[Round]:
        for _ in range(n):
            self.log.append(task.width)
            seconds = task.n_tokens * (0.5 + 0.5 * (task.width or 1)) * 1e-3
            yield Round(seconds, 2 * seconds, (Load(1.0, 0.0),))

    def int8_peak(self) -> float:
        return 4.0


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> Options:
    monkeypatch.setattr(Options, "files", lambda self: {"Q4_0 file": PATH})
    bandwidths = lambda n_bytes, threads: [Bandwidth(n_bytes, t, 2.0) for t in threads]  # noqa: E731
    monkeypatch.setattr(beams.bandwidth, "read_bandwidths", bandwidths)

    def periods(work: Sequence[tuple[str, Task]], options: Options) -> Iterator[Any]:
        for _, task in work:
            yield 0, task, FakeSides()

    monkeypatch.setattr(beams, "periods", periods)
    return Options("beams", "tiny", PATH, ("Q4_0",), "llama", False, False, (2,), 3)


def rows(chosen: Options) -> dict[tuple[str, str], dict[str, Any]]:
    measurement = beams.Measurement(chosen)
    measurement.run()
    return {(row.case, row.metric): row.as_json() for row in measurement.rows()}


def test_beams_are_held_against_one_beam_at_the_same_place(chosen: Options) -> None:
    found = rows(chosen)
    for position in beams.POSITIONS:
        place = f"Q4_0 file, position {position}"
        assert found[place, "1 beam"]["ours"] == 1
        assert found[place, "4 beams"]["ours"] == 2.5
        assert found[place, "4 beams"]["peer"] == 5
        assert found[place, "4 beams against 1"]["ours"] == 2.5
        assert found[place, "4 beams against 1"]["ratio"] == 1
    assert ("Q4_0 file, position 20", "16 tokens at once against 1") in found
    assert ("Q4_0 file, position 500", "16 tokens at once") not in found


def test_widths_are_measured_in_turns(chosen: Options) -> None:
    FakeSides.log.clear()
    rows(chosen)
    assert FakeSides.log[:8] == [1, 2, 4, 8, 1, 2, 4, 8]


def test_limit_of_a_step_is_the_longer_of_reading_and_multiplying(chosen: Options) -> None:
    found = rows(chosen)
    one = found["Q4_0 file, position 20", "1 beam"]
    eight = found["Q4_0 file, position 20", "8 beams"]
    assert (one["read_ms"], one["multiply_ms"], one["limit_ms"]) == (0.51, 0.25, 0.51)
    assert (eight["multiply_ms"], eight["limit_ms"]) == (2, 2)
    assert found["Q4_0 file, position 20", "8 beams against 1"]["limit"] == 2


def test_widest_task_makes_room_for_all(chosen: Options) -> None:
    for group in beams.groups(chosen):
        assert group.widest.context == max(task.context for task in group.tasks)
