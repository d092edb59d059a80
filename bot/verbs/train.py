"""Fine-tune a model on rows of your own, look at rows before that, and at runs after it.

DATA is a file of rows (.jsonl, .json, .txt, also .gz and .zst), a folder of them, or a mixture with
weights: "a.jsonl:2,b.jsonl:1". `sparsechat train check DATA` shows what a run would learn from it.
Ctrl-C finishes the step, saves, and says how to go on.
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from bot import render, verbs
from bot.settings import nearest
from bot.training.flags import add_training_flags, complete, given

if TYPE_CHECKING:
    from bot.training.running import Job
    from engine.training.events import Result

ACTIONS = "bot.training.actions"
INTERRUPTED = 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """DATA, what goes on, and a flag per setting."""
    parser.add_argument("data", metavar="DATA", nargs="*", help="rows to train on; or an ACTION")
    parser.add_argument(
        "--resume",
        metavar="RUN",
        nargs="?",
        const="",
        help="go on with a run where it stopped; without RUN, the last one that is not finished",
    )
    parser.add_argument("--json", action="store_true", help="the result as one object on stdout")
    add_training_flags(parser)
    folder = verbs.actions_folder(ACTIONS)
    names = verbs.names(folder)
    parser.usage = "%(prog)s DATA [OPTION …] | --resume [RUN] | ACTION …"
    width = max(map(len, names))
    listed = (f"  {name:{width}}  {verbs.summary(name, folder)}" for name in names)
    parser.epilog = "actions (sparsechat train ACTION --help):\n" + "\n".join(listed)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.set_defaults(usage_error=parser.error)


def run(args: argparse.Namespace) -> int:
    """0 when the run is finished, 130 when it was stopped and can go on, 1 when a rule ended it."""
    from bot.training import environment, running

    job = _job(args)
    running.check(job)
    if args.owns_process:
        environment.renew()
    result = running.do(job)
    if result is None:
        _say_ended_at_once(job)
        return INTERRUPTED
    if args.json:
        render.out(json.dumps(result._asdict(), default=str, ensure_ascii=False))
    else:
        _say(job.settings.name, result)
    if result.finished:
        return 0
    return INTERRUPTED if result.reason.startswith("stopped at") else 1


def _job(args: argparse.Namespace) -> Job:
    from bot.training.running import Job, resumed

    if len(args.data) > 1:
        args.usage_error(_several(args.data))
    values = given(args)
    if args.resume is not None:
        if values:
            name = "DATA" if args.data else f"--{next(iter(values)).replace('_', '-')}"
            args.usage_error(f"--resume goes on with the settings of the run, so without {name}")
        return resumed(args.resume)
    if not values.get("data"):
        args.usage_error("DATA is missing: a file or a folder of rows; or --resume")
    try:
        return Job(complete(values))
    except ValueError as error:
        args.usage_error(str(error))
        raise


def _several(words: list[str]) -> str:
    """What is wrong with more than one DATA."""
    names = verbs.names(verbs.actions_folder(ACTIONS))
    if guess := nearest(words[0], names):
        return f"there is no action {words[0]!r}{guess}"
    return f"one DATA at a time; to mix them: {','.join(words)}, with weights: {words[0]}:2,…"


def _say(name: str, result: Result) -> None:
    """How it ended, and what can be done now."""
    from bot.training.monitor import duration, result_line

    if not result.finished:
        render.err(f"{name}: {result.reason}; `{result.resume_command}` goes on from there")
        return
    said = f"{name}: finished, {result.reason}: {result.step:,} steps in {duration(result.seconds)}"
    if result.best_loss is not None and result.first_val_loss is not None:
        said += f", held-out loss {result.first_val_loss:.4f} -> {result.best_loss:.4f}"
        said += f" (step {result.best_step:,})"
    if result.n_skipped:
        said += f", {render.counted(result.n_skipped, 'step')} skipped"
    render.err(said)
    if line := result_line(result.path):
        render.err(line)


def _say_ended_at_once(job: Job) -> None:
    from engine.training.run import Run, runs_dir

    run = job.resumes or Run(runs_dir() / job.settings.name)
    if any(run.checkpoints.glob("step-*")):
        render.err(f"{run.name}: ended at once; `{run.resume_command}` goes on from what is saved")
    else:
        render.err(f"{run.name}: ended at once, before anything was saved")
