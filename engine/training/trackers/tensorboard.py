"""TensorBoard's files in `tensorboard/` in the run's folder: `tensorboard --logdir FOLDER`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.training.events import Evaluated, Event
from engine.training.trackers import TrackedRun
from engine.training.trackers._figures import figures

PACKAGE = "tensorboard"


def open_tracker(run: TrackedRun) -> TensorBoard:
    """Another file in the same folder when the run is resumed; TensorBoard joins them."""
    return TensorBoard(run.folder / "tensorboard")


class TensorBoard:
    """Scalars, and the samples as text."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder))

    def log(self, event: Event) -> None:
        """At the event's step."""
        for name, value in figures(event).items():
            self._writer.add_scalar(name, value, event.step)  # type: ignore[union-attr]
        if isinstance(event, Evaluated):
            self._writer.flush()

    def close(self) -> None:
        """Write what is held back."""
        self._writer.close()
