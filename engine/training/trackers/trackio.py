"""Trackio: a database on this machine, shown by `trackio show`."""

from __future__ import annotations

import dataclasses
import sys
from contextlib import AbstractContextManager, redirect_stdout
from typing import Any

from engine.training.events import Event
from engine.training.trackers import TrackedRun
from engine.training.trackers._figures import figures

PACKAGE = "trackio"
PROJECT = "sparsechat"


def open_tracker(run: TrackedRun) -> Trackio:
    """Goes on with the same run there when ours is resumed."""
    return Trackio(run)


class Trackio:
    """One trackio run."""

    def __init__(self, run: TrackedRun) -> None:
        import trackio

        with _off_stdout():
            self._run: Any = trackio.init(
                project=PROJECT,
                name=run.name,
                config=dataclasses.asdict(run.settings),
                resume="allow",
                embed=False,
                auto_log_cpu=False,  # a thread of its own, beside the one that trains
                auto_log_gpu=False,
            )

    def log(self, event: Event) -> None:
        """At the event's step."""
        if found := figures(event):
            self._run.log(found, step=event.step)  # type: ignore[union-attr]

    def close(self) -> None:
        """Finish the run there."""
        with _off_stdout():
            self._run.finish()


def _off_stdout() -> AbstractContextManager[Any]:
    """It prints what it does, and stdout is for results."""
    return redirect_stdout(sys.stderr)
