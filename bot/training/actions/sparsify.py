"""Teach a model to leave most of its feed-forwards out, by its own dense self.

Without DATA the model first writes answers to some hundred questions; after Ctrl-C the same command
goes on with them. The run is gone on with as any other, `sparsechat train --resume NAME`. It leaves
a model that carries its thresholds: `--sparsity 0.7`, or what it was trained for, uses them.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Any

from bot import render
from bot.training.flags import add_training_flags, complete, given
from engine.training.sparsify.outcome import ANSWERS, read_report
from engine.training.sparsify.settings import (
    RESULTS,
    SparsifySettings,
    settings_from,
    with_defaults,
)

if TYPE_CHECKING:
    from engine.training.events import Result

INTERRUPTED = 130
HELPS = {
    "goal": "share of every feed-forward's neurons that a token leaves out in the end",
    "rows": "of these, the share left out by the gate alone, before their rows are read (0.2 less)",
    "start": "share left out at the first step",
    "ramp": "share of the run in which the share left out rises",
    "fixed": "share of the run after which thresholds stay",
    "dense_share": "share of the rows that are read densely, to stay near the original",
    "hidden": "weight of the hidden states' distance beside the KL divergence",
    "match": "hidden states are compared after every N-th layer",
    "control": "train densely on the same rows' tokens, to see what the data alone does",
    "questions": "how many of the built-in questions the model answers, without DATA (all)",
    "answer_tokens": "length of these answers",
    "temperature": "at which they are drawn",
    "result": "format of the GGUF file",
}
_CHOICES = {"result": RESULTS}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """DATA, a flag per setting of sparsity, and those of any run."""
    parser.add_argument("data", metavar="DATA", nargs="*", help="rows; the model's own texts")
    parser.add_argument("--json", action="store_true", help="result and report as one object")
    group = parser.add_argument_group("sparsity")
    for field in fields(SparsifySettings):
        flag, kind = f"--{field.name.replace('_', '-')}", str(field.type).split(" | ")[0]
        shown = HELPS[field.name]
        if kind == "bool":
            group.add_argument(flag, action="store_true", default=argparse.SUPPRESS, help=shown)
            continue
        shown += "" if field.default is None else f" ({field.default})"
        group.add_argument(
            flag,
            type={"int": int, "float": float, "str": str}[kind],
            choices=_CHOICES.get(field.name),
            metavar=None if field.name in _CHOICES else {"int": "N"}.get(kind, "X"),
            default=argparse.SUPPRESS,
            help=shown,
        )
    add_training_flags(parser)
    parser.set_defaults(usage_error=parser.error)


def run(args: argparse.Namespace) -> int:
    """0 when the model is written, 130 when it was stopped, 1 when a rule ended it."""
    from bot.training import running
    from engine.training.sparsify.sparsifying import sparsify

    own, values = _settings(args)
    settings = complete(values)
    job = running.Job(settings)
    running.check(job)
    status = render.Status()

    def on_answer(done: int, total: int) -> None:
        status.show(f"{settings.name}: the model's own answers {done}/{total}")

    result = running.do(job, partial(sparsify, settings, own, on_answer=on_answer))
    status.clear()
    if result is None:
        render.err(f"{settings.name}: stopped; the same command goes on")
        return INTERRUPTED
    _say(settings.name, result, args.json)
    if result.finished:
        return 0
    return INTERRUPTED if result.reason.startswith("stopped at") else 1


def _settings(args: argparse.Namespace) -> tuple[SparsifySettings, dict[str, Any]]:
    """Of sparsity, and of the run; a usage error where they do not fit."""
    if len(args.data) > 1:
        args.usage_error(f"one DATA at a time; to mix them: {','.join(args.data)}")
    named = {field.name for field in fields(SparsifySettings)}
    try:
        own = settings_from({name: getattr(args, name) for name in named if hasattr(args, name)})
        values = with_defaults(given(args))
        if "name" not in values:
            values["name"] = _free_name(complete({**values, "name": "-"}).model)
        complete(values)
    except ValueError as error:
        args.usage_error(str(error))
        raise
    return own, values


def _free_name(model: str) -> str:
    """`smollm2-135m-sparse`, or with a number; the one of texts that were being written is kept."""
    from pathlib import Path

    from bot.training.names import is_taken
    from engine.training.run import Run, runs_dir

    stem = Path(model).name.removesuffix(".gguf") + "-sparse"
    number, name = 1, stem
    while is_taken(name):
        run = Run(runs_dir() / name)
        if (run.folder / ANSWERS).exists() and not run.settings_file.exists():
            return name
        number += 1
        name = f"{stem}-{number}"
    return name


def _say(name: str, result: Result, as_json: bool) -> None:
    found = read_report(result.run)
    if as_json:
        value = {**result._asdict(), "report": found and found._asdict()}
        render.out(json.dumps(value, default=str, ensure_ascii=False))
        return
    if not result.finished:
        render.err(f"{name}: {result.reason}; `{result.resume_command}` goes on from there")
        return
    render.err(f"{name}: finished, {result.reason}: {result.step:,} steps; {result.path}")
    for line in found.lines() if found else ():
        render.err(line)
