"""The lines of `print` with times, in `loguru.log` in the run's folder and in the program's log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from loguru import logger

from engine.training.events import Event, Warned
from engine.training.trackers import TrackedRun
from engine.training.trackers.print import line_of

PACKAGE = None


def open_tracker(run: TrackedRun) -> Logger:
    """A file that is appended to when the run is resumed."""
    return Logger(run.name, run.folder)


class Logger:
    """Its sink takes this run's lines alone."""

    def __init__(self, name: str, folder: Path) -> None:
        self._log = logger.bind(training_run=name)

        def is_ours(record: Any) -> bool:
            return bool(record["extra"].get("training_run") == name)

        # elsewhere only entry points add sinks; this one is what the user asked for by its name
        self._sink = logger.add(folder / "loguru.log", filter=is_ours, encoding="utf-8")

    def log(self, event: Event) -> None:
        """Log what has figures, and warnings."""
        if isinstance(event, Warned):
            self._log.warning("{}", event.text)
        elif line := line_of(event):
            self._log.info("{}", line)

    def close(self) -> None:
        """Close the file."""
        logger.remove(self._sink)
