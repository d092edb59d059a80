"""How fast does one train here, with how much memory, and is the result as good? Ours beside TRL
and PEFT.

    python -m benchmarks.training [--parts speed memory quality resume optimizer learned]
                                  [--rows FILE] [--quick] [--save] [--keep FOLDER]
                                  [--pieces N] [--kinds KIND ...]

Regime: bound by multiplications (float32 or bytes) where the step is well made, by passes over
activations in memory where it is not. SmolLM2-135M, LoRA of rank 16 on all linear layers, AdamW.
Baselines: TRL's SFTTrainer with PEFT and its defaults (bf16, checkpointing, eight padded rows);
the same tuned (float32, packed, no checkpointing); PEFT in a plain loop, float32, packed, its
layers compiled by torch.compile, warm; transformers in float32, packed, for full fine-tuning. Ours
is `engine.training.train` as the command line calls it. The rows: benchmarks/training_rows.py; an
OIG file is named by --rows or stands in the folder $SPARSECHAT_BENCH_DATA. The whole takes hours on
two cores: with --keep FOLDER it is made in pieces, and the same command goes on where one ended.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from benchmarks import (
    options,
    peers,
    report,
    training_learned,
    training_models,
    training_quality,
    training_resume,
    training_rows,
    training_speed,
)
from benchmarks.kept import Kept, OutOfTime
from benchmarks.process import run

PARTS: dict[str, Callable[[training_speed.Bench], list[report.Row]]] = {
    "speed": training_speed.speed,
    "memory": training_speed.memory,
    "quality": training_quality.quality,
    "resume": training_resume.resume,
    "optimizer": training_resume.optimizers,
    "learned": training_learned.learned,
}
_UNFINISHED = 4  # exit code


def _parser() -> argparse.ArgumentParser:
    parser = options.parser_of("training", (__doc__ or "").splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART",
                        help=", ".join(PARTS))  # fmt: skip
    parser.add_argument("--rows", type=Path, metavar="FILE", help="OIG rows to train on")
    parser.add_argument("--base", default="auto", help="of LoRA: auto, int8, int16, q4, f32")
    parser.add_argument("--pieces", type=int, help=f"of speed, of {training_speed.ROUNDS} steps")
    kinds = [case.kind for case in training_speed.CASES]
    parser.add_argument("--kinds", nargs="+", choices=kinds, default=kinds, metavar="KIND",
                        help=f"the peers of speed: {', '.join(kinds)}; others as kept")  # fmt: skip
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="what was measured, to go on")
    parser.add_argument("--seconds", type=float, metavar="S", help="begin nothing new after these")
    return parser


def main() -> None:
    """Measure, print, and with --save keep."""
    chosen, args = options.parse_alone(_parser(), "training", rounds=training_speed.ROUNDS)
    try:
        data = training_rows.prepared(training_rows.oig_file(args.rows))
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    peers.available(training_models.PEER, build=not chosen.quick)
    if args.base != "auto":
        chosen = replace(chosen, name=f"{chosen.name}-{args.base}")
    file = f"{chosen.name}-quick.json" if chosen.quick else f"{chosen.name}.json"
    kept = Kept(args.keep and args.keep / file, args.seconds)
    n_pieces = args.pieces or (1 if chosen.quick else training_speed.PIECES)
    bench = training_speed.Bench(chosen, data, kept, args.base, n_pieces, frozenset(args.kinds))
    try:
        rows = [row for part in args.parts for row in PARTS[part](bench)]
    except OutOfTime as end:
        print(f"not finished, next: {end}; the same command goes on", file=sys.stderr)
        sys.exit(_UNFINISHED)
    about = chosen.about() | {"peer": peers.about(training_models.PEER)}
    report.publish(chosen.name, about, rows, save=chosen.save)


if __name__ == "__main__":
    run(main)
