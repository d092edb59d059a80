"""How many tokens a second does decoding give, ours and llama.cpp's on the same file?

Regime: bound by memory. Each token reads every weight once, so the limit is the read bandwidth over
the bytes of a token; "of the memory" is the share of that limit. 128 tokens from an empty cache,
and with --long from position 2,000. No sampling on either side. Compiling, the time to the first
token and the rate are rows of their own.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from benchmarks import machine, options, report
from benchmarks.process import Worker, run
from benchmarks.rounds import Task, peer_name, periods

LONG = 2000


def tasks(chosen: options.Options) -> Iterator[tuple[str, Task]]:
    """(case, task) in the order of the table."""
    n_tokens = 32 if chosen.quick else 128
    for case, path in chosen.files().items():
        for position in (0, LONG) if chosen.long else (0,):
            where = f", from position {position:,}" if position else ""
            for threads in chosen.threads:
                yield case + where, Task("decode", path, threads, n_tokens, position)


def measure(chosen: options.Options) -> tuple[list[report.Row], list[machine.Bandwidth]]:
    """All rows, and the bandwidth that was there in each period."""
    work = list(tasks(chosen))
    rates = {
        task: report.Row(case, task.threads, "decode", "tok/s", peer_name(chosen))
        for case, task in work
    }
    starts = {
        task: report.Row(case, task.threads, "import to first token", "s", peer_name(chosen), True)
        for case, task in work
        if not task.position
    }
    bandwidths: list[machine.Bandwidth] = []
    for period, task, sides in periods(work, chosen):
        # beside the rounds: other machines share this one's memory, and its speed drifts
        n_bytes = sides.ours_loaded["bytes_per_token"]
        bandwidths += machine.read_bandwidths(n_bytes, [task.threads])
        row = rates[task]
        for took in sides.rounds(chosen.rounds):
            row.add(*took.rates(task.n_tokens), *took.loads)
        row.extra = _limits(row, task, sides.ours_loaded, bandwidths)
        row.extra["peer_flash_attention"] = sides.flash_attention if sides.peer_loaded else None
        if task in starts and period:  # the first period's may have packed or compiled
            starts[task].add(_start(sides.ours_loaded), _start(sides.peer_loaded))
    bandwidths += machine.read_bandwidths(machine.large_bytes(), chosen.threads)
    first = [row for row in starts.values() if row.ours]
    return [*rates.values(), *_kept(rates), *first, *_compiling(chosen)], bandwidths


def _kept(rates: dict[Task, report.Row]) -> list[report.Row]:
    """What is left of the rate at position 0, for each later position."""
    rows = []
    for task, row in rates.items():
        if task.position:
            kept = report.Row(row.case, row.threads, "rate kept of position 0", "", row.peer_name)
            late, early = row.as_json(), rates[task._replace(position=0)].as_json()
            shares = [
                late[s] / early[s] if late[s] and early[s] else None for s in ("ours", "peer")
            ]
            kept.add(shares[0], shares[1])
            rows.append(kept)
    return rows


def _start(loaded: dict[str, Any]) -> float | None:
    """Seconds from importing the library to the first logits."""
    if not loaded:
        return None
    return float(loaded["import_s"] + loaded["load_s"] + loaded["first_token_s"])


def _limits(
    row: report.Row, task: Task, loaded: dict[str, Any], bandwidths: list[machine.Bandwidth]
) -> dict[str, Any]:
    """What the memory allows: with the same threads, and an array as large as the weights."""
    middle = (task.position or 0) + task.n_tokens / 2
    n_bytes = loaded["bytes_per_token"] + middle * loaded["bytes_per_position"]
    alike = (loaded["bytes_per_token"], task.threads)
    best = max(b.gb_s for b in bandwidths if b[:2] == alike)
    rate = row.as_json()["ours"]
    return {
        "bytes_per_token": int(n_bytes),
        "read_gb_s": best,
        "limit_tok_s": best * 1e9 / n_bytes,
        "bandwidth_share": rate * n_bytes / 1e9 / best,
    }


def _compiling(chosen: options.Options) -> list[report.Row]:
    """The very first start: kernels compiled anew, against a start that finds them."""
    if chosen.quick:
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
    rows, bandwidths = measure(chosen)
    report.publish(chosen.name, chosen.about(bandwidths), rows, save=chosen.save)


if __name__ == "__main__":
    run(main)
