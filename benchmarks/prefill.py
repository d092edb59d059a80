"""How many tokens a second of a prompt are read, ours and llama.cpp's on the same file?

Regime: bound by arithmetic. A block of weights is used for many tokens, so the limit is the rate of
multiplications: multiplications_g_s counts those of the layers' matrices, in billions a second, and
leaves attention out. A prompt of 512 tokens, with --long of 2,048 too, from an empty cache; logits
of its last token only.
"""

from __future__ import annotations

from benchmarks import machine, options, report
from benchmarks.process import run
from benchmarks.rounds import Task, peer_name, periods

LENGTHS = (512, 2048)


def measure(chosen: options.Options) -> tuple[list[report.Row], list[machine.Bandwidth]]:
    """All rows, and the bandwidth at the start."""
    work = [
        (f"{case}, {n_tokens:,} tokens", Task("prefill", path, threads, n_tokens))
        for case, path in chosen.files().items()
        for n_tokens in (LENGTHS if chosen.long else LENGTHS[:1])
        for threads in chosen.threads
    ]
    rows = {
        task: report.Row(case, task.threads, "prefill", "tok/s", peer_name(chosen))
        for case, task in work
    }
    bandwidths: list[machine.Bandwidth] = []
    for _, task, sides in periods(work, chosen):
        loaded, row = sides.ours_loaded, rows[task]
        if task == work[0][1]:
            bandwidths += machine.read_bandwidths(loaded["bytes_per_token"], chosen.threads)
        for took in sides.rounds(chosen.rounds):
            row.add(*took.rates(task.n_tokens), *took.loads)
        rate = row.as_json()["ours"]
        row.extra = {
            "multiplications_g_s": rate * loaded["multiplications"] / 1e9,
            "peer_flash_attention": sides.flash_attention if sides.peer_loaded else None,
        }
    return list(rows.values()), bandwidths


def main() -> None:
    """Measure, print, and with --save keep."""
    chosen = options.parse("prefill", (__doc__ or "").splitlines()[0], rounds=3)
    rows, bandwidths = measure(chosen)
    report.publish(chosen.name, chosen.about(bandwidths), rows, save=chosen.save)


if __name__ == "__main__":
    run(main)
