"""How fast is one step of training by base and method, and what is its time spent on?

    python -m benchmarks.training_step [--cases lora:bf16 full:f32 …] [--rows FILE] [--tokens 2048]

Regime: bound by multiplications. Ours alone (peers: benchmarks.training): the model on batches of
packed rows, forward, backward and fused AdamW; the loop's evaluations and checkpoints are left out.
A case is a process of its own, so that its peak of memory is its own. Without --rows, documents of
random tokens of like lengths: as quick, but nothing is to be learned from their loss.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from benchmarks import machine, options, report
from benchmarks.process import run

CASES = (
    "lora:bf16",
    "lora:int8",
    "lora:int16",
    "lora:q4",
    "lora:f32",
    "last_layers:bf16",
    "full:f32",
)
# what torch's profiler calls them -> what they are; the rest is "other"
PARTS = {
    "aten::mm": "products of bfloat16 and thin ones",
    "aten::addmm_": "products of bfloat16 and thin ones",
    "aten::_int_mm": "products of int8",
    "mkldnn::_linear_pointwise": "products of float32",
    "_Attention": "attention",
    "_AttentionBackward": "attention",
    "_FrozenBackward": "products of int16; int8 and 4 bits to and fro",
    "_Frozen": "products of int16; int8 and 4 bits to and fro",
    "_Swiglu": "norms and activations",
    "_SwigluBackward": "norms and activations",
    "_Norm": "norms and activations",
    "_NormBackward": "norms and activations",
    "_AddNorm": "norms and activations",
    "_AddNormBackward": "norms and activations",
    "_CrossEntropy": "softmax over the vocabulary",
    "aten::index_select": "softmax over the vocabulary",
    "aten::sort": "softmax over the vocabulary",
    "Optimizer.step#AdamW.step": "optimizer",
    "aten::_fused_adamw_": "optimizer",
}


class Task(NamedTuple):
    """What all cases share. rows: a file, None = random tokens."""

    model: Path
    rows: Path | None
    tokens: int  # a step
    steps: int
    threads: int
    head_mass: float
    checkpointing: bool


def batches(task: Task, config: Any) -> Iterator[Any]:
    """Batches without end, of rows of a file or of random tokens."""
    from engine.training.packing import Batch

    if task.rows is not None:
        yield from _of_rows(task)
    rng = np.random.default_rng(0)
    while True:
        lengths: list[int] = []
        while sum(lengths) < task.tokens:
            length = int(np.clip(rng.lognormal(5.0, 0.4), 24, 700))
            lengths.append(min(length, task.tokens - sum(lengths)))
        token_ids = rng.integers(0, config.vocab_size, task.tokens)
        positions = np.concatenate([np.arange(n) for n in lengths])
        trained = positions * 2 >= np.repeat(lengths, lengths)
        trained[positions == 0] = False
        labels = np.flatnonzero(trained)
        yield Batch(token_ids, positions, lengths, labels - 1, token_ids[labels])


def _of_rows(task: Task) -> Iterator[Any]:
    from data.datasets import BadRow
    from data.training_rows import open_rows
    from engine.checkpoints import open_checkpoint
    from engine.tokenizer import load_tokenizer
    from engine.training.examples import example
    from engine.training.packing import pack

    tokenizer = load_tokenizer(open_checkpoint(task.model))
    assert tokenizer is not None
    rows = open_rows(str(task.rows)).epoch(0)
    made = (example(row, tokenizer, 512) for row in rows if not isinstance(row, BadRow))
    yield from pack(made, task.tokens)


def measure(task: Task, case: str) -> dict[str, Any]:
    """One case in this process: tokens a second of each step, peak memory, seconds by part."""
    import torch

    from engine.checkpoints import open_checkpoint
    from engine.training.allocator import freed_memory_kept
    from engine.training.methods import method
    from engine.training.model import Trainable

    torch.set_num_threads(task.threads)
    name, base = case.split(":")
    checkpoint = open_checkpoint(task.model)
    source = batches(task, checkpoint.decoder_config())
    with freed_memory_kept():
        model = Trainable.build(
            checkpoint,
            method(name),
            base=base,
            checkpointing=task.checkpointing,
            head_mass=task.head_mass,
        )
        optimizer = torch.optim.AdamW(model.trainable.values(), lr=1e-5, fused=True)

        def step() -> int:
            batch = next(source)
            loss = model(batch)
            (loss.total / loss.n).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            return len(batch.token_ids)

        step()  # compiles, and fills the allocator
        rates = []
        with machine.Background() as background:
            for _ in range(task.steps):
                started = time.perf_counter()
                n_tokens = step()
                rates.append(n_tokens / (time.perf_counter() - started))
        used = machine.memory()
        with torch.profiler.profile() as profile:
            step()
    seconds: dict[str, float] = {}
    for event in profile.key_averages():
        part = PARTS.get(event.key, "other")
        seconds[part] = seconds.get(part, 0.0) + event.self_cpu_time_total / 1e6
    load = list(background.load)
    return {"rates": rates, "peak": used and used["peak"], "seconds": seconds, "load": load}


def measure_apart(case: str) -> dict[str, Any]:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.training_step", "--one", case, *sys.argv[1:]]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _rows(case: str, threads: int, found: dict[str, Any]) -> list[report.Row]:
    total = sum(found["seconds"].values())
    shares = {part: seconds / total for part, seconds in found["seconds"].items()}
    speed = report.Row(case, threads, "step", "tok/s", extra={"shares": shares})
    for rate in found["rates"]:
        speed.add(rate, None, machine.Load(*found["load"]))
    memory = report.Row(case, threads, "peak memory", "GiB", less_is_better=True)
    memory.add(found["peak"] and found["peak"] / (1 << 30))
    return [speed, memory]


def main() -> None:
    """Measure, print, and with --save keep."""
    parser = options.parser_of("training_step", (__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", nargs="+", default=list(CASES), metavar="METHOD:BASE")
    parser.add_argument("--rows", type=Path, metavar="FILE", help="rows as `train` reads them")
    parser.add_argument("--tokens", type=int, default=2048, metavar="N", help="a step")
    parser.add_argument("--steps", type=int, metavar="N", help="that are timed (20)")
    parser.add_argument("--head-mass", type=float, default=0.999, metavar="X")
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--one", metavar="CASE", help=argparse.SUPPRESS)
    chosen, args = options.parse_alone(parser, "training_step", rounds=20)
    task = Task(
        model=chosen.model,
        rows=args.rows,
        tokens=args.tokens,
        steps=args.steps or (4 if chosen.quick else 20),
        threads=chosen.threads[-1],
        head_mass=args.head_mass,
        checkpointing=args.checkpointing,
    )
    if args.one:
        print(json.dumps(measure(task, args.one)))
        return
    rows = []
    for case in args.cases:
        found = measure_apart(case)
        rows += _rows(case, task.threads, found)
        _print_parts(case, found)
    report.publish(chosen.name, chosen.about(), rows, save=chosen.save)


def _print_parts(case: str, found: dict[str, Any]) -> None:
    total = sum(found["seconds"].values())
    print(f"{case}: {median(found['rates']):,.0f} tok/s; of a step's time:")
    for part, seconds in sorted(found["seconds"].items(), key=lambda item: -item[1]):
        print(f"    {seconds / total:5.1%}  {part}")


if __name__ == "__main__":
    run(main)
