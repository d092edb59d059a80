"""What a run teaches. Plain training: the rows' own tokens. Another aim is a file that is named
here, with another loss and another result; the loop, its checkpoints and events are the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from engine.training.packing import Batch
from engine.training.results import write_result
from engine.training.settings import TrainSettings
from engine.training.subject import Subject

Arrays = dict[str, NDArray[Any]]


class Aim(Protocol):
    """A run's. What it holds that changes from step to step is in `arrays`."""

    def facts(self) -> dict[str, Any] | None:
        """For settings.json, so that aim_of makes it again; None: plain training."""

    def model(self, model: Any, settings: TrainSettings) -> Any:
        """What is trained in place of a Trainable (updates.Model), made of it."""

    def begin(self, step: int, done: float) -> None:
        """Before each step; `done`: share of the run."""

    def arrays(self) -> Arrays:
        """For checkpoints."""

    def put(self, arrays: Arrays) -> None:
        """What `arrays` gave; ValueError when it does not fit."""

    def evaluated(self, step: int, folder: Path, batches: Sequence[Batch]) -> None:
        """After each evaluation of the held-out batches; folder: the run's."""

    def write(self, name: str, model: Any, settings: TrainSettings, subject: Subject) -> Path:
        """Leave the result; where it is."""


class Plain:
    """The rows' own tokens."""

    def facts(self) -> None:
        return None

    def model(self, model: Any, settings: TrainSettings) -> Any:
        return model

    def begin(self, step: int, done: float) -> None:
        pass

    def arrays(self) -> Arrays:
        return {}

    def put(self, arrays: Arrays) -> None:
        pass

    def evaluated(self, step: int, folder: Path, batches: Sequence[Batch]) -> None:
        pass

    def write(self, name: str, model: Any, settings: TrainSettings, subject: Subject) -> Path:
        return write_result(name, model, settings, subject)


def aim_of(facts: Mapping[str, Any] | None) -> Aim:
    """The aim whose `facts` these are. ValueError for one that this build does not have."""
    if facts is None:
        return Plain()
    if facts.get("kind") != "sparsify":
        raise ValueError(f"the run has the aim {facts.get('kind')!r}, which this build cannot do")
    from engine.training.sparsify.aim import Sparsify

    return Sparsify.of(facts)
