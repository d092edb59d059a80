"""How much longer does a step take with several beams, or with several tokens to verify?

Regime: weights are read once for all tokens of a step, so it stays bound by memory until the
multiplications take longer; the limit of a step is the longer of both, attention left out. "4
beams" is a step of a search after a short prompt and after one of 500 tokens (1 beam is plain
decoding); "4 tokens at once" is what the verification of a draft costs. llama.cpp gets the same
rows in one batch. The rows "against 1" hold each number of beams against one, in the same minute.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks import bandwidth, machine, options, report
from benchmarks.process import run
from benchmarks.rounds import Sides, Task, peer_name, periods

POSITIONS = (20, 500)
WIDTHS = {"beams": (1, 2, 4, 8), "several": (1, 2, 4, 8, 16)}
_NOUNS = {"beams": "beam", "several": "token"}
_STEPS = 24


class Group(NamedTuple):
    """Steps of all widths at one place: measured in turns by the same two processes."""

    case: str
    tasks: tuple[Task, ...]  # the widest last

    @property
    def widest(self) -> Task:
        """The task that needs most room."""
        return self.tasks[-1]


def groups(chosen: options.Options) -> Iterator[Group]:
    """In the order of the table."""
    n_steps = chosen.tokens or (8 if chosen.quick else _STEPS)
    for case, path in chosen.files().items():
        for threads in chosen.threads:
            for position in POSITIONS:
                for action in WIDTHS:
                    if action == "beams" or position == POSITIONS[0]:
                        tasks = _tasks(action, path, threads, n_steps, position)
                        yield Group(f"{case}, position {position}", tasks)


def _tasks(action: str, path: Path, threads: int, n_steps: int, position: int) -> tuple[Task, ...]:
    return tuple(Task(action, path, threads, n_steps, position, width) for width in WIDTHS[action])


def metric_of(task: Task) -> str:
    """Of a row of the table, as "4 beams" or "8 tokens at once"."""
    assert task.width is not None
    noun = _NOUNS[task.action] + ("" if task.width == 1 else "s")
    return f"{task.width} {noun}" + (" at once" if task.action == "several" else "")


class Measurement:
    """The rows of one run, filled period by period."""

    def __init__(self, chosen: options.Options) -> None:
        self._chosen = chosen
        self._groups = {group.widest: group for group in groups(chosen)}
        self.bandwidths: list[bandwidth.Bandwidth] = []
        self._peaks: dict[int, float] = {}
        self._steps: dict[Task, report.Row] = {}
        self._against: dict[Task, report.Row] = {}
        peer = peer_name(chosen)
        for group in self._groups.values():
            for task in group.tasks:
                metric = metric_of(task)
                row = report.Row(group.case, task.threads, metric, "ms a step", peer, True)
                self._steps[task] = row
                if task.width != 1:
                    row = report.Row(
                        group.case, task.threads, f"{metric} against 1", "", peer, True
                    )
                    self._against[task] = row

    def run(self) -> None:
        """All periods."""
        work = [(group.case, group.widest) for group in self._groups.values()]
        for _, widest, sides in periods(work, self._chosen):
            threads = widest.threads
            n_bytes = sides.ours_loaded["bytes_per_token"]
            self._peaks[threads] = max(self._peaks.get(threads, 0.0), sides.int8_peak())
            tasks = self._groups[widest].tasks
            # in turns: the machine's speed drifts, and the widths are compared with each other
            rounds = [sides.rounds(self._chosen.rounds, task) for task in tasks]
            for took in zip(*rounds, strict=True):
                self.bandwidths += bandwidth.read_bandwidths(n_bytes, [threads])
                for task, one in zip(tasks, took, strict=True):
                    self._add(task, one.ours, one.peer, one.loads)
                    if task in self._against:
                        first = took[0]
                        ours = one.ours / first.ours
                        peer = one.peer / first.peer if one.peer and first.peer else None
                        self._against[task].add(ours, peer, *one.loads, *first.loads)
            for task in tasks:
                limit_ms = self._limit(task, sides)
                if task in self._against:
                    one_ms = self._steps[tasks[0]].as_json()["ours"]
                    self._against[task].extra = {"limit": limit_ms / one_ms}

    def _add(
        self, task: Task, ours: float, peer: float | None, loads: Sequence[machine.Load]
    ) -> None:
        to_ms = 1e3 / task.n_tokens
        self._steps[task].add(ours * to_ms, peer * to_ms if peer else None, *loads)

    def _limit(self, task: Task, sides: Sides) -> float:
        """The longer of reading the weights and the cache, and of multiplying, in milliseconds."""
        loaded, row, width = sides.ours_loaded, self._steps[task], task.width or 1
        n_bytes = loaded["bytes_per_token"]
        read_gb_s = bandwidth.read_gb_s(self.bandwidths, n_bytes, task.threads)
        n_bytes += (task.position or 0) * loaded["bytes_per_position"]
        read_ms = n_bytes / read_gb_s / 1e6
        work = width * (loaded["multiplications"] + loaded["head_multiplications"])
        multiply_ms = work / self._peaks[task.threads] / 1e6
        limit_ms: float = max(read_ms, multiply_ms)
        row.extra = {
            "read_gb_s": read_gb_s,
            "int8_peak_g_s": self._peaks[task.threads],
            "read_ms": read_ms,
            "multiply_ms": multiply_ms,
            "limit_ms": limit_ms,
            "limit_share": limit_ms / row.as_json()["ours"],
        }
        return limit_ms

    def rows(self) -> list[report.Row]:
        """Seconds of steps, then what they are against one beam or token."""
        return [*self._steps.values(), *self._against.values()]


def main() -> None:
    """Measure, print, and with --save keep."""
    doc = (__doc__ or "").splitlines()[0]
    chosen = options.parse("beams", doc, rounds=3, formats=("Q4_0",))
    measurement = Measurement(chosen)
    measurement.run()
    about = chosen.about(measurement.bandwidths)
    report.publish(chosen.name, about, measurement.rows(), save=chosen.save)


if __name__ == "__main__":
    run(main)
