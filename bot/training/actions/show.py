"""One training run: its settings, its evaluations, its last answers, how it goes on."""

from __future__ import annotations

import argparse
import shutil
from typing import TYPE_CHECKING

from bot import render

if TYPE_CHECKING:
    from bot.training.history import History
    from engine.training.run import Run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run."""
    parser.add_argument("run", metavar="RUN", help="its name, or its folder")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    """0; 1 when its folder is damaged."""
    from bot.kb.output import json_out
    from bot.training.history import history_of, samples_of
    from bot.training.names import find_run

    found = find_run(args.run)
    history = history_of(found)
    if history.problem:
        render.complain(history.problem)
        return 1
    if args.json:
        more = {"folder": str(found.folder), "settings": history.settings}
        evaluations = {"evaluations": list(history.evaluations), "samples": samples_of(found)}
        json_out({**history.record(), **more, **evaluations, "result": history.result})
        return 0
    for line in _lines(found, history):
        render.out(line)
    return 0


def _lines(found: Run, history: History) -> list[str]:
    from bot.training.history import samples_of
    from bot.training.monitor import sample_lines
    from engine.training.events import Sample
    from engine.training.settings import TrainSettings

    of = f" of {history.n_steps:,}" if history.n_steps is not None else ""
    facts = {
        "run": f"{history.name}, {history.state} at step {history.step:,}{of}",
        "folder": str(found.folder),
        "began": history.began,
    }
    built_in = TrainSettings("", "", "").as_dict()
    settings = history.settings or {}
    facts |= {
        name: str(value)
        for name, value in settings.items()
        if name in ("data", "model", "method") or (name != "name" and value != built_in.get(name))
    }
    if history.result:
        facts["ended"] = str(history.result.get("reason", ""))
        if history.result.get("path"):
            facts["result"] = str(history.result["path"])
    if history.resume_command:
        facts["goes on with"] = history.resume_command
    width = max(map(len, facts))
    lines = [f"{name.replace('_', ' '):<{width}}  {value}" for name, value in facts.items()]
    lines += _evaluations(history)
    columns = shutil.get_terminal_size().columns - 1
    for one in samples_of(found):
        sample = Sample(one["prompt"], one["base"], one["now"])
        lines += [line[:columns] for line in sample_lines(sample, is_base=not one["step"])]
    return lines


def _evaluations(history: History) -> list[str]:
    """The table that the run showed; the best row is that of today."""
    from bot.training.monitor import HEADER, evaluation_line
    from engine.training.events import Evaluated

    lines = ["", HEADER] if history.evaluations else []
    best_step = history.best["step"] if history.best else None
    before = -1
    for line in history.evaluations:
        loss, perplexity, accuracy = map(
            _number, (line.get("loss"), line.get("perplexity"), line.get("accuracy"))
        )
        step = int(line["step"])
        event = Evaluated(step, loss, perplexity, accuracy, step == best_step, ())
        between = [one for one in history.steps if before < one["step"] <= step]
        losses = [one["loss"] for one in between if one.get("loss") is not None]
        trained = sum(losses) / len(losses) if losses else None
        lines.append(
            evaluation_line(event, trained, between[-1]["tokens_per_s"] if between else None)
        )
        before = step
    return lines


def _number(value: float | None) -> float:
    """JSON has null for what was not finite."""
    return float("nan") if value is None else float(value)
