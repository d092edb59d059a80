"""Weights & Biases: its files lie in the run's folder, and go to its server if you are logged in.

WANDB_MODE and the other variables of wandb hold as everywhere. Where neither they nor an earlier
`wandb login` say otherwise, the run stays offline; `wandb sync FOLDER` uploads it later.
"""

from __future__ import annotations

import dataclasses
import os
from hashlib import blake2b
from typing import Any

from loguru import logger

from engine.training.events import Event
from engine.training.trackers import TrackedRun
from engine.training.trackers._figures import figures

PACKAGE = "wandb"
PROJECT = "sparsechat"


def open_tracker(run: TrackedRun) -> WeightsAndBiases:
    """Goes on with the same run at wandb when ours is resumed."""
    return WeightsAndBiases(run)


class WeightsAndBiases:
    """One wandb run."""

    def __init__(self, run: TrackedRun) -> None:
        import wandb

        is_known = bool(os.environ.get("WANDB_MODE")) or wandb.login(prompt=False, verify=False)
        # names are unique on this machine alone, wandb's ids in a project
        mark = blake2b(str(run.folder.resolve()).encode(), digest_size=4).hexdigest()
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=run.name,
            id=f"{run.name[:48]}-{mark}",
            resume="allow",
            dir=str(run.folder),
            config=dataclasses.asdict(run.settings),
            mode=None if is_known else "offline",
            settings=wandb.Settings(silent=True, console="off"),  # the terminal is ours
        )
        # an axis of our own: wandb drops what a resumed run logs at steps that it has seen
        self._run.define_metric("*", step_metric="step")
        logger.info("wandb keeps {} in {}", run.name, self._run.dir)

    def log(self, event: Event) -> None:
        """At the event's step."""
        if found := figures(event):
            self._run.log({"step": event.step, **found})  # type: ignore[union-attr]

    def close(self) -> None:
        """Finish the run there, and wait until its files are written: nothing of Python's own end
        may come after this."""
        import wandb

        self._run.finish()
        wandb.teardown()
