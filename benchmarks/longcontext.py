"""What does a long context cost: reading 2,048 tokens, and decoding at position 2,000?

Regime: attention grows with every token, so it is neither the weights' bytes nor their
multiplications alone; "of the limit" of a decode counts the cache's bytes too. llama.cpp keeps
its cache in float16 and runs with flash attention. Decoding is held against position 0, too: what
share of its rate is left. --tokens sets the length of the prompt (the position is its nearest
thousand below); the files are Q4_0 unless told.
"""

from __future__ import annotations

from dataclasses import replace

from benchmarks import bandwidth, decode, options, prefill, report
from benchmarks.process import run
from benchmarks.rounds import Task

LENGTH = 2048
_ANSWER = 64  # tokens


def decodes(chosen: options.Options, position: int) -> list[tuple[str, Task]]:
    """Pairs of the same decode at position 0 and at the late one, next to each other."""
    n_tokens = 16 if chosen.quick else _ANSWER
    return [
        (f"{case}, position {at:,}", Task("decode", path, threads, n_tokens, at, None, True))
        for case, path in chosen.files().items()
        for threads in chosen.threads
        for at in (0, position)
    ]


def kept(measurement: decode.Measurement) -> list[report.Row]:
    """What is left of the rate at position 0, for each later position."""
    rows = []
    for task, row in measurement.rates.items():
        if task.position:
            share = report.Row(row.case, row.threads, "rate kept of position 0", "", row.peer_name)
            late = row.as_json()
            early = measurement.rates[task._replace(position=0)].as_json()
            ours, peer = (
                late[side] / early[side] if late[side] and early[side] else None
                for side in ("ours", "peer")
            )
            share.add(ours, peer)
            rows.append(share)
    return rows


def measure(chosen: options.Options) -> tuple[list[report.Row], list[bandwidth.Bandwidth]]:
    """All rows, and the bandwidths beside the decodes."""
    length = chosen.tokens or LENGTH
    decoding = decode.Measurement(decodes(chosen, max(length // 1000 * 1000, 1)), chosen)
    decoding.run()
    reading = [
        (case, task._replace(flash_attention=True)) for case, task in prefill.tasks(chosen, length)
    ]
    rows, _ = prefill.measure(reading, chosen)
    return [*rows, *decoding.rates.values(), *kept(decoding)], decoding.bandwidths


def main() -> None:
    """Measure, print, and with --save keep."""
    doc = (__doc__ or "").splitlines()[0]
    chosen = options.parse("longcontext", doc, rounds=2, formats=("Q4_0",))
    if chosen.tokens not in (None, LENGTH):
        chosen = replace(chosen, name=f"{chosen.name}-{chosen.tokens}")
    rows, bandwidths = measure(chosen)
    report.publish(chosen.name, chosen.about(bandwidths), rows, save=chosen.save)


if __name__ == "__main__":
    run(main)
