"""The training runs on this machine: how far they are, their best loss, how they go on."""

from __future__ import annotations

import argparse

from bot import render


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--json."""
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    """0, also when there is none."""
    from bot.kb.output import json_out
    from bot.sparsity import table
    from bot.training.history import history_of
    from bot.training.names import run_names
    from engine.training.run import Run, runs_dir

    found = [history_of(Run(runs_dir() / name)) for name in run_names()]
    if args.json:
        json_out({"runs": [history.record() for history in found]})
        return 0
    if not found:
        render.err("no training run yet: `sparsechat train DATA` makes one")
        return 0
    rows = [("run", "state", "step", "best loss", "at", "")]
    for one in found:
        of = f"{one.step:,}" if one.n_steps is None else f"{one.step:,} of {one.n_steps:,}"
        loss = f"{one.best['loss']:.4f}" if one.best else "-"
        at = f"{one.best['step']:,}" if one.best else "-"
        rows.append((one.name, one.state, of, loss, at, one.problem or one.resume_command))
    for line in table(rows):
        render.out(line)
    return 0
