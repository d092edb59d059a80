"""A run that teaches sparsity, to the training loop: its loss, its thresholds, its result."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray

from data.files import write_json
from engine.training.packing import Batch
from engine.training.run import runs_dir
from engine.training.settings import TrainSettings
from engine.training.sparsify.outcome import CURVE, REPORT
from engine.training.sparsify.settings import SparsifySettings, settings_from
from engine.training.sparsify.student import Student
from engine.training.subject import Subject


class Scores(NamedTuple):
    """Of the held-out answers, against the dense original: nats a token.

    kl, drift  with the goal's thresholds, and with nothing left out
    active     share of the neurons that count for a token, of each layer; rows: that are read
    """

    kl: float
    drift: float
    active: list[float]
    rows: list[float]


class Sparsify:
    """Of one run; see engine/training/aims.py."""

    def __init__(self, settings: SparsifySettings) -> None:
        self.settings = settings
        self._student: Student | None = None

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Sparsify:
        """What `facts` gave."""
        values = {key: value for key, value in facts.items() if key != "kind"}
        return cls(settings_from(values, "settings.json: aim"))

    def facts(self) -> dict[str, Any]:
        return {"kind": "sparsify", **self.settings.as_dict()}

    def model(self, model: Any, settings: TrainSettings) -> Student:
        if settings.checkpointing and self.settings.hidden:
            raise ValueError("checkpointing keeps no hidden states to compare; set hidden to 0")
        self._student = Student(model, self.settings, settings.seed)
        return self._student

    def begin(self, step: int, done: float) -> None:
        self.student.begin(step, done)

    def arrays(self) -> dict[str, NDArray[Any]]:
        gates = self.student.gates
        gates.follow()
        return {name: values.copy() for name, values in self._followed().items()}

    def put(self, arrays: dict[str, NDArray[Any]]) -> None:
        for name, values in self._followed().items():
            if name not in arrays or arrays[name].shape != values.shape:
                raise ValueError(f"the checkpoint has no {name!r} of thresholds of {values.shape}")
            values[:] = arrays[name]

    def _followed(self) -> dict[str, NDArray[Any]]:
        """What follows the activations, by name."""
        gates = self.student.gates
        return {"now": gates.now, "goal": gates.goal, "importance": gates.importance}

    def evaluated(self, step: int, folder: Path, batches: Sequence[Batch]) -> None:
        scores = score(self.student, batches)
        with (folder / CURVE).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **scores._asdict()}) + "\n")

    def write(self, name: str, model: Any, settings: TrainSettings, subject: Subject) -> Path:
        from engine.training.sparsify.report import examples_of, report
        from engine.training.sparsify.result import write_sparse_model

        trained = self.student.trained()
        form = self.settings.result
        path = write_sparse_model(name, self.student, settings, subject, trained, form)
        if texts := examples_of(subject.val_batches):
            found = report(subject.path, path, texts, settings.threads)
            write_json(runs_dir() / name / REPORT, found._asdict())
        return path

    @property
    def student(self) -> Student:
        """Once `model` was called."""
        assert self._student is not None
        return self._student


def score(student: Student, batches: Sequence[Batch]) -> Scores:
    """Without gradients; the student trains on after it."""
    kl, drift, n = 0.0, 0.0, 0
    student.train(False)
    seen = student.gates.count()
    with torch.no_grad():
        for batch in batches:
            sparse = student(batch)
            kl, n = kl + float(sparse.total), n + sparse.n
            drift += float(student.dense_loss(batch).total)
    student.gates.seen = None
    student.train(True)
    active, rows = ([round(float(s), 4) for s in shares] for shares in seen.shares())
    return Scores(kl / max(n, 1), drift / max(n, 1), active, rows)


def curve(folder: Path) -> list[dict[str, Any]]:
    """The evaluations of a run, each step's last one."""
    path = folder / CURVE
    if not path.exists():
        return []
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue  # torn by a crash
        found[value["step"]] = value
    return [found[step] for step in sorted(found)]
