"""One run of training from the command line: what is asked for, then watched until it ends."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from bot.loading import find_model
from bot.training.monitor import Monitor
from bot.training.names import find_run, run_names
from bot.training.stopping import Stopping
from data.mixture import parse_mixture
from engine.training.events import Event, Result, Started
from engine.training.run import Run
from engine.training.settings import TrainSettings
from engine.training.trackers import Trackers, check_trackers, tracker_names


class Job(NamedTuple):
    """A run to begin; `resumes` is the one to go on with instead."""

    settings: TrainSettings
    resumes: Run | None = None


def resumed(word: str) -> Job:
    """Go on with the run of that name or in that folder; "" = the last one that is not finished."""
    if not word:
        unfinished = (n for n in run_names() if not find_run(n).is_finished)
        word = next(unfinished, "")
        if not word:
            raise ValueError("there is no training run to go on with; `sparsechat train list`")
    run = find_run(word)
    if run.is_finished:
        raise ValueError(f"run {run.name} is finished; train under a new name to go on from it")
    return Job(run.settings(), run)


def check(job: Job) -> None:
    """The errors that can be had before anything is loaded: no model, no rows, no torch, …"""
    find_model(job.settings.model)
    if job.settings.data:  # else the run makes its own
        parse_mixture(job.settings.data)
    check_trackers(_tracked(job.settings))
    require_torch()


def require_torch() -> None:
    """ValueError with the pip command where torch is missing."""
    if find_spec("torch") is None:
        raise ValueError(
            "training needs torch, which is not installed: pip install 'sparsechat[train]'"
        )


def do(job: Job, begin: Callable[..., Result | None] | None = None) -> Result | None:
    """Train, and show how it goes; None when a second Ctrl-C ended it at once.

    begin  what a new run is begun with, of on_event and should_stop, in place of plain training
    """
    from engine.training.train import resume, train

    begin = begin or partial(train, job.settings)
    watching = _Watching(job)
    try:
        with Stopping() as stopping:
            if job.resumes is None:
                return begin(on_event=watching.hear, should_stop=stopping.should_stop)
            folder = job.resumes.folder
            return resume(folder, on_event=watching.hear, should_stop=stopping.should_stop)
    except KeyboardInterrupt:
        return None
    finally:
        watching.close()


class _Watching:
    """The monitor and the trackers of one run, which are opened when the run has a folder."""

    def __init__(self, job: Job) -> None:
        names = tracker_names(job.settings.train_log_backend)
        self._job, self._names = job, _tracked(job.settings)
        self._monitor = Monitor(job.settings.name, job.settings.model, "print" in names)
        self._trackers: Trackers | None = None

    def hear(self, event: Event) -> None:
        if isinstance(event, Started):
            run = _TrackedRun(event.run.name, event.run, self._job.settings)
            self._trackers = Trackers(self._names, run, self._monitor.note)
        self._monitor.log(event)
        if self._trackers is not None:
            self._trackers.log(event)

    def close(self) -> None:
        if self._trackers is not None:
            self._trackers.close()
        self._monitor.close()


class _TrackedRun(NamedTuple):
    name: str
    folder: Path
    settings: TrainSettings


def _tracked(settings: TrainSettings) -> list[str]:
    """The trackers to open: what `print` prints, the monitor shows."""
    return [name for name in tracker_names(settings.train_log_backend) if name != "print"]
