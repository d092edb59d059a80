"""Does a training run survive kills at any moment, and go on as if nothing had happened?

    python -m benchmarks.training_kills [--kills 200] [--save]

A tiny model is trained in a process that is killed (SIGKILL) at a random moment, resumed and killed
again until the run ends; then its losses, its held-out losses and its final weights are compared
with those of a run that nobody disturbed. Then the next run begins, of the next kind (dropout and
8-bit states, or accumulation), until all kills are spent. Counted: runs that could not be resumed,
checkpoints found damaged, kills that hit a run in its steps (the others died before them), and the
largest difference of a loss.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loguru import logger

from benchmarks import machine, report
from tests.engine.training.tiny_model import write_rows, write_tiny_model

LONGEST_S = 0.8  # from the start of a process to its kill: some die before the first step
KINDS: tuple[dict[str, Any], ...] = (
    {"dropout": 0.2, "optimizer": "adamw8bit", "rank": 64},
    {"accumulate": 2, "evaluate_every": 3},
)


def survive(folder: Path, n_kills: int, seed: int = 0) -> dict[str, float]:
    """Spend n_kills on runs below `folder`; what was counted, by name."""
    from engine.training.run import Run
    from engine.training.settings import TrainSettings

    os.environ["SPARSECHAT_HOME"] = str(folder / "home")
    basic = TrainSettings(
        data=str(write_rows(folder / "rows.jsonl", 120)),
        model=str(write_tiny_model(folder / "model")),
        name="whole", base="f32", tokens_per_step=256, learning_rate=1e-2, epochs=2, val_share=0.1,
        evaluate_every=5, save_every=1, samples=0, max_in_memory_batches=3, threads=1,
    )  # fmt: skip
    dice = random.Random(seed)
    names = ("kills", "in steps", "runs", "not resumed", "damaged", "largest difference")
    counted = dict.fromkeys(names, 0.0)
    whole: dict[int, Path] = {}
    while counted["kills"] < n_kills:
        kind = int(counted["runs"]) % len(KINDS)
        settings = basic.changed(**KINDS[kind])
        if kind not in whole:
            name = f"whole-{kind}"
            if _train(settings.changed(name=name), None) != 0:
                raise RuntimeError(f"run {name} failed without a kill")
            whole[kind] = folder / "home" / "data" / "runs" / name
        run = Run(folder / "home" / "data" / "runs" / f"run-{int(counted['runs'])}")
        _spend(settings.changed(name=run.name), run, n_kills, dice, counted)
        counted["runs"] += 1
        told = run.log.read_text()
        counted["damaged"] += told.count("is damaged")
        counted["in steps"] += told.count("started at step") - 1  # the last one lived
        difference = largest_difference(run.folder, whole[kind])
        counted["largest difference"] = max(counted["largest difference"], difference)
        _note(f"{int(counted['kills'])} of {n_kills} kills, difference {difference:.1e}")
    return counted


def _spend(settings: Any, run: Any, n_kills: int, dice: random.Random, counted: Any) -> None:
    """Kill one run until it ends; the last process is left alone when no kill is left."""
    while True:
        delay = dice.uniform(0, LONGEST_S) if counted["kills"] < n_kills else None
        code = _train(settings, delay)
        if code == -signal.SIGKILL:
            counted["kills"] += 1
        elif code == 0:
            return
        else:
            counted["not resumed"] += 1
            raise RuntimeError(f"run {run.name} could not be resumed; see {run.log}")


def _train(settings: Any, kill_after_s: float | None) -> int:
    """Begin or resume a run in a child; its exit code, negative when it was killed.

    The child is a fork, so that what takes seconds to import is there.
    """
    import engine.training.train  # noqa: F401  (before the fork)

    child = os.fork()
    if not child:
        os._exit(_child(settings))
    if kill_after_s is not None:
        until = time.monotonic() + kill_after_s
        while time.monotonic() < until:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.001)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _child(settings: Any) -> int:
    from engine.training.run import Run, runs_dir
    from engine.training.train import resume, train

    try:
        begun = Run(runs_dir() / settings.name).settings_file.exists()
        return 0 if (resume(settings.name) if begun else train(settings)).finished else 1
    except Exception:
        traceback.print_exc()
        return 1


def largest_difference(one: Path, other: Path) -> float:
    """Of the losses of two runs, step by step, and of their final weights; inf when they were not
    of the same steps."""
    import numpy as np
    from safetensors.numpy import load_file

    losses = [_losses(folder) for folder in (one, other)]
    if losses[0].keys() != losses[1].keys():
        return float("inf")
    found = max(abs(losses[0][key] - losses[1][key]) for key in losses[0])
    finals = [
        load_file(max((folder / "checkpoints").glob("step-*")) / "state.safetensors")
        for folder in (one, other)
    ]
    for name, values in finals[0].items():
        if name.startswith("weights/"):
            found = max(found, float(np.abs(values - finals[1][name]).max()))
    return found


def _losses(folder: Path) -> dict[tuple[str, int], float]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {(e["event"], e["step"]): e["loss"] for e in lines if "loss" in e}


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="training runs under kills")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--quick", action="store_true", help="20 kills")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args(arguments)
    if not hasattr(os, "fork"):
        raise SystemExit("this benchmark needs os.fork, which this system does not have")
    logger.remove()
    n_kills = 20 if options.quick else options.kills
    with tempfile.TemporaryDirectory() as folder:
        counted = survive(Path(folder), n_kills, options.seed)
    extra = {key: value for key, value in counted.items() if key != "not resumed"}
    row = report.Row(f"{n_kills} kills", 1, "runs lost", "", None, True, extra)
    row.add(counted["not resumed"])
    report.publish("training_kills", machine.describe(), [row], save=options.save)


if __name__ == "__main__":
    main()
