"""Where a run's figures go besides its own folder: one module per place, found by its name.

A module has `open_tracker(run) -> Tracker` and names in `PACKAGE` what it needs beyond this
project's own packages (None: nothing); that is imported when a tracker is opened, not before.
The names are the values of `--train-log-backend`, several with commas between them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, Protocol

from loguru import logger

from engine.training.events import Event

__all__ = ["TRACKERS", "TrackedRun", "Tracker", "Trackers", "check_trackers", "tracker_names"]

TRACKERS = tuple(sorted(m.name for m in iter_modules(__path__) if not m.name.startswith("_")))


class TrackedRun(Protocol):
    """What a tracker reads of a run: its name, its folder, its settings (a dataclass)."""

    @property
    def name(self) -> str: ...
    @property
    def folder(self) -> Path: ...
    @property
    def settings(self) -> Any: ...


class Tracker(Protocol):
    """One place that figures go to."""

    def log(self, event: Event) -> None:
        """Take over what the event tells; events that tell it nothing are passed over."""

    def close(self) -> None:
        """Write what is held back."""


def tracker_names(text: str) -> list[str]:
    """`print,wandb` as a list without repetitions; ValueError for a name that there is not."""
    names = list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    for name in names:
        if name not in TRACKERS:
            near = get_close_matches(name, TRACKERS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(TRACKERS)}"
            raise ValueError(f"no train_log_backend is called {name!r}; {hint}")
    return names


def check_trackers(names: Iterable[str]) -> None:
    """ValueError with the pip command when a package is missing; nothing heavy is imported."""
    for name in names:
        package = _module(name).PACKAGE
        if package is not None and find_spec(package) is None:
            raise ValueError(
                f"--train-log-backend {name} needs the package {package}, which is not installed: "
                f"pip install {package}"
            )


class Trackers:
    """All trackers of a run. One that fails is reported and left out from then on: a run is not
    lost because a server cannot be reached."""

    def __init__(
        self,
        names: Iterable[str],
        run: TrackedRun,
        on_problem: Callable[[str], None] = logger.warning,
    ) -> None:
        names = list(names)
        self._open: dict[str, Tracker] = {}
        self._on_problem = on_problem
        check_trackers(names)
        for name in names:
            self._open[name] = _module(name).open_tracker(run)

    def log(self, event: Event) -> None:
        """Tell it to each."""
        for name, tracker in list(self._open.items()):
            try:
                tracker.log(event)
            except Exception as error:
                del self._open[name]
                self._on_problem(f"{name} gets no more figures: {error}")

    def close(self) -> None:
        """Close each."""
        while self._open:
            name, tracker = self._open.popitem()
            try:
                tracker.close()
            except Exception as error:
                self._on_problem(f"{name} was not closed: {error}")


def _module(name: str) -> Any:
    return import_module(f"{__name__}.{name}")
