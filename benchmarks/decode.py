"""How many tokens a second does decoding give, ours and llama.cpp's on the same file?

Regime: bound by memory. Each token reads every weight once, so the limit is the read bandwidth over
the bytes of a token; "of the limit" is the share of it. 128 tokens from an empty cache, fewer of
large models; benchmarks/longcontext.py asks from later positions. No sampling on either side.
Compiling, the time to the first token, the rate and the memory are rows of their own.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import bandwidth, machine, options, report
from benchmarks.process import Worker, run
from benchmarks.rounds import Sides, Task, peer_name, periods

_GIB = 1 << 30


def tasks(chosen: options.Options) -> Iterator[tuple[str, Task]]:
    """(case, task) in the order of the table."""
    for case, path in chosen.files().items():
        for threads in chosen.threads:
            yield case, Task("decode", path, threads, n_tokens(chosen, path), position=0)


def n_tokens(chosen: options.Options, path: Path) -> int:
    """As many as give the larger models seconds and not minutes."""
    if chosen.tokens:
        return chosen.tokens
    n_bytes = path.stat().st_size
    whole = 128 if n_bytes < _GIB // 4 else 64 if n_bytes < 2 * _GIB else 16
    return min(32, whole) if chosen.quick else whole


class Measurement:
    """The rows of one run, filled period by period."""

    def __init__(self, work: Sequence[tuple[str, Task]], chosen: options.Options) -> None:
        self._work, self._chosen = work, chosen
        self.bandwidths: list[bandwidth.Bandwidth] = []
        self.rates = {task: self._row(case, task, "decode", "tok/s") for case, task in work}
        self._starts = self._once("import to first token", "s", work)
        last = [(case, task) for case, task in work if task.threads == chosen.threads[-1]]
        self._memory = self._once("peak memory", "GiB", last)
        self._packing = self._once("peak memory of packing, once", "GiB", work)

    def _row(self, case: str, task: Task, metric: str, unit: str) -> report.Row:
        return report.Row(case, task.threads, metric, unit, peer_name(self._chosen))

    def _once(
        self, metric: str, unit: str, work: Sequence[tuple[str, Task]]
    ) -> dict[Task, report.Row]:
        """Rows of less-is-better for what does not depend on the position."""
        rows = {
            task: self._row(case, task, metric, unit) for case, task in work if not task.position
        }
        for row in rows.values():
            row.less_is_better = True
        return rows

    def run(self) -> None:
        """All periods."""
        for period, task, sides in periods(self._work, self._chosen):
            n_bytes = sides.ours_loaded["bytes_per_token"]
            row = self.rates[task]
            for took in sides.rounds(self._chosen.rounds):
                row.add(*took.rates(task.n_tokens), *took.loads)
                # beside each round: other machines share this one's memory, its speed drifts
                self.bandwidths += bandwidth.read_bandwidths(n_bytes, [task.threads])
            row.extra = limits(row, task, sides.ours_loaded, self.bandwidths)
            row.extra["peer_flash_attention"] = sides.flash_attention if sides.peer_loaded else None
            if task in self._starts and period:  # the first period's may have packed or compiled
                started = _start(sides.ours_loaded), _start(sides.peer_loaded)
                self._starts[task].add(*started)
            self._add_memory(task, sides)

    def _add_memory(self, task: Task, sides: Sides) -> None:
        rows = self._packing if sides.ours_loaded["packed_weights"] else self._memory
        if task not in rows:
            return
        ours, theirs = (answer.get("memory") for answer in sides.ask_both("memory"))
        if ours is None:  # not Linux
            return
        row, peer = rows[task], theirs or {}
        row.add(ours["peak"] / _GIB, peer["peak"] / _GIB if peer else None)
        row.extra = {
            f"{whose}_{kind}_gib": found[kind] / _GIB
            for whose, found in (("ours", ours), ("peer", peer))
            for kind in ("anon", "file")
            if found
        }

    def rows(self) -> list[report.Row]:
        """Rates first."""
        single = [*self._starts.values(), *self._memory.values(), *self._packing.values()]
        return [*self.rates.values(), *(row for row in single if row.ours)]


def _start(loaded: dict[str, Any]) -> float | None:
    """Seconds from importing the library to the first logits."""
    if not loaded:
        return None
    return float(loaded["import_s"] + loaded["load_s"] + loaded["first_token_s"])


def limits(
    row: report.Row,
    task: Task,
    loaded: dict[str, Any],
    bandwidths: Sequence[bandwidth.Bandwidth],
) -> dict[str, Any]:
    """What the memory allows: with the same threads, and an array as large as the weights."""
    middle = (task.position or 0) + task.n_tokens / 2
    n_bytes = loaded["bytes_per_token"] + middle * loaded["bytes_per_position"]
    read_gb_s = bandwidth.read_gb_s(bandwidths, loaded["bytes_per_token"], task.threads)
    rate = row.as_json()["ours"]
    return {
        "bytes_per_token": int(n_bytes),
        "read_gb_s": read_gb_s,
        "limit_tok_s": read_gb_s * 1e9 / n_bytes,
        "limit_share": rate * n_bytes / 1e9 / read_gb_s,
    }


def compiling(chosen: options.Options) -> list[report.Row]:
    """The very first start: kernels compiled anew, against a start that finds them."""
    if chosen.quick or chosen.label != options.DEFAULT:
        return []
    case, path = next(iter(chosen.files().items()))
    threads = chosen.threads[-1]
    row = report.Row(case, threads, "compiling kernels, once", "s", less_is_better=True)
    options.note("compiling kernels into an empty cache")
    seconds: list[float] = []
    with tempfile.TemporaryDirectory() as empty:
        variables = chosen.variables() | {"NUMBA_CACHE_DIR": empty}
        for _ in range(2):
            with Worker(sys.executable, "benchmarks.engine_driver", variables) as worker:
                loaded = worker.ask("load", path=str(path), threads=threads)
                seconds.append(loaded["load_s"])
    row.add(seconds[0] - seconds[1])
    return [row]


def main() -> None:
    """Measure, print, and with --save keep."""
    chosen = options.parse("decode", (__doc__ or "").splitlines()[0], rounds=5)
    measurement = Measurement(list(tasks(chosen)), chosen)
    measurement.run()
    bandwidths = measurement.bandwidths
    bandwidths += bandwidth.read_bandwidths(machine.large_bytes(), chosen.threads)
    rows = [*measurement.rows(), *compiling(chosen)]
    report.publish(chosen.name, chosen.about(bandwidths), rows, save=chosen.save)


if __name__ == "__main__":
    run(main)
