"""How many tokens a second of a prompt are read, ours and llama.cpp's on the same file?

Regime: bound by arithmetic. A block of weights is used for many tokens, so the limit is the rate of
multiplications: multiplications_g_s counts those of the layers' matrices, in billions a second, and
leaves attention out; int8_peak_g_s is what the processor does when nothing else costs, measured
beside the rounds (benchmarks/peak.py). A prompt of 512 tokens from an empty cache, logits of its
last token only; benchmarks/longcontext.py reads longer ones.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks import bandwidth, options, report
from benchmarks.process import run
from benchmarks.rounds import Sides, Task, peer_name, periods

LENGTH = 512


def tasks(chosen: options.Options, n_tokens: int) -> list[tuple[str, Task]]:
    """(case, task) in the order of the table."""
    return [
        (f"{case}, {n_tokens:,} tokens", Task("prefill", path, threads, n_tokens))
        for case, path in chosen.files().items()
        for threads in chosen.threads
    ]


def measure(
    work: Sequence[tuple[str, Task]], chosen: options.Options
) -> tuple[list[report.Row], list[bandwidth.Bandwidth]]:
    """All rows, and the bandwidth at the start."""
    rows = {
        task: report.Row(case, task.threads, "prefill", "tok/s", peer_name(chosen))
        for case, task in work
    }
    bandwidths: list[bandwidth.Bandwidth] = []
    peaks: dict[int, float] = {}
    for _, task, sides in periods(work, chosen):
        row = rows[task]
        if not bandwidths:
            n_bytes = sides.ours_loaded["bytes_per_token"]
            bandwidths += bandwidth.read_bandwidths(n_bytes, chosen.threads)
        # the best of all: a limit is what was once reached
        peaks[task.threads] = max(peaks.get(task.threads, 0.0), sides.int8_peak())
        for took in sides.rounds(chosen.rounds):
            row.add(*took.rates(task.n_tokens), *took.loads)
        row.extra = _limits(row, sides, peaks[task.threads])
    return list(rows.values()), bandwidths


def _limits(row: report.Row, sides: Sides, peak: float) -> dict[str, float | bool | None]:
    """What the processor allows, attention left out."""
    per_token = sides.ours_loaded["multiplications"] / 1e9
    rate = row.as_json()["ours"]
    return {
        "multiplications_g_s": rate * per_token,
        "int8_peak_g_s": peak,
        "limit_tok_s": peak / per_token,
        "limit_share": rate * per_token / peak,
        "peer_flash_attention": sides.flash_attention if sides.peer_loaded else None,
    }


def main() -> None:
    """Measure, print, and with --save keep."""
    chosen = options.parse("prefill", (__doc__ or "").splitlines()[0], rounds=3)
    rows, bandwidths = measure(tasks(chosen, chosen.tokens or LENGTH), chosen)
    report.publish(chosen.name, chosen.about(bandwidths), rows, save=chosen.save)


if __name__ == "__main__":
    run(main)
