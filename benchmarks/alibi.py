"""Is ALiBi as fast as rope far out: a prompt of 16,384 tokens, and decoding behind it?

Regime: attention reads a cache that grows with every token. Two files of the same sizes with random
weights, MPT's (ALiBi) and GPT-NeoX's (a quarter of each head turned); both ours, each in a process
of its own, asked in turns. They differ in biases and in GPT-NeoX's parallel branches, too: the rows
from an empty cache show what those cost.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path

from benchmarks import gguf_files, machine, options, report
from benchmarks.process import Worker, run
from benchmarks.rounds import Task

LENGTH = 16384
_SHAPES = ("shape-mpt-long", "shape-pythia-long")
_ANSWER = 32  # tokens
_READING_S = 1200.0  # for a prompt


def tasks(threads: int, length: int, n_tokens: int) -> dict[str, Task]:
    """Case -> what is timed of either file, in the order of the table."""
    either = Path()
    return {
        "prompt of 512": Task("prefill", either, threads, 512),
        f"prompt of {length:,}": Task("prefill", either, threads, length),
        "decode from an empty cache": Task("decode", either, threads, n_tokens, 0),
        f"decode at {length:,}": Task("decode", either, threads, n_tokens, length),
    }


def measure(chosen: options.Options, length: int) -> list[report.Row]:
    """A row for each task, of ALiBi beside rope."""
    threads = chosen.threads[-1]
    n_tokens = 8 if chosen.quick else _ANSWER
    with ExitStack() as stack:
        sides = []
        for name in _SHAPES:
            options.note(f"loading {name}")
            path = gguf_files.of_shape(name)
            worker = stack.enter_context(
                Worker(sys.executable, "benchmarks.engine_driver", chosen.variables())
            )
            worker.ask("load", path=str(path), threads=threads)
            sides.append(worker)
        rows = []
        for case, task in tasks(threads, length, n_tokens).items():
            options.note(case)
            row = report.Row(case, threads, task.action, "tok/s", "rope")
            for i in range(-1, chosen.rounds):
                ours, theirs = _round(*sides, task, alibi_first=i % 2 == 0)
                if i >= 0:  # the first finds caches to be filled
                    row.add(*(task.n_tokens / seconds for seconds, _ in (ours, theirs)),
                            *(load for _, load in (ours, theirs)))  # fmt: skip
            rows.append(row)
    return rows


def _round(
    alibi: Worker, rope: Worker, task: Task, *, alibi_first: bool
) -> list[tuple[float, machine.Load]]:
    """(seconds, load) of ALiBi and of rope, one right after the other."""
    found = {}
    for worker in (alibi, rope) if alibi_first else (rope, alibi):
        answer = worker.ask(task.action, deadline_s=_READING_S, **task.arguments())
        found[worker] = answer["seconds"], machine.Load(*answer["load"])
    return [found[alibi], found[rope]]


def main() -> None:
    """Measure, print, and with --save keep."""
    parser = options.parser_of("alibi", (__doc__ or "").splitlines()[0])
    parser.add_argument("--tokens", type=int, default=LENGTH, metavar="N", help="of the prompt")
    parser.set_defaults(model=_SHAPES[0])
    chosen, args = options.parse_alone(parser, "alibi", rounds=3)
    rows = measure(chosen, args.tokens)
    report.publish("alibi", chosen.about(), rows, save=chosen.save)


if __name__ == "__main__":
    run(main)
