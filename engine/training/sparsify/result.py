"""What a run leaves: the model with all that it learned in its weights, and its thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from loguru import logger
from numpy.typing import NDArray

from data.files import private_folder
from data.paths import models_dir
from engine.adapters import trained_adapter
from engine.cache_dir import cache_dir
from engine.checkpoints import open_checkpoint
from engine.export import FORMATS, Source, to_gguf, to_huggingface
from engine.fingerprint import fingerprint
from engine.sparsity.trained import Trained, write_trained
from engine.training.examples import Example
from engine.training.packing import batch_of
from engine.training.settings import TrainSettings
from engine.training.sparsify.student import Student
from engine.training.subject import Subject


def write_sparse_model(
    name: str,
    student: Student,
    settings: TrainSettings,
    subject: Subject,
    trained: Trained,
    format_name: str,
) -> Path:
    """The GGUF file models/<name>/<name>.gguf; beside it <name>.sparsity.json. Where GGUF has no
    words for the model, the Hugging Face directory models/<name>, in floats."""
    path = models_dir() / name / f"{name}.gguf"
    private_folder(path.parent)

    def logits(token_ids: Sequence[int]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = student.logits(_batch(token_ids)).numpy()
        return found

    source = _source(student, settings, subject)
    try:
        to_gguf(path, source, logits, format_name)
    except ValueError as error:
        logger.warning("{}", error)
        path = path.parent
        number = format_name if format_name in FORMATS["huggingface"] else None
        to_huggingface(path, source, logits, number, base=subject.model_name)
    write_trained(path, trained, fingerprint(open_checkpoint(path), cache_dir()))
    return path


def _source(student: Student, settings: TrainSettings, subject: Subject) -> Source:
    if settings.method != "lora":
        return Source(subject.checkpoint, tensors=student.full_tensors())
    scale = settings.alpha / settings.rank
    adapter = trained_adapter("trained", student.adapter_matrices(), scale, subject.config)
    return Source(subject.checkpoint, adapter)


def _batch(token_ids: Sequence[int]) -> Any:
    return batch_of([Example(list(token_ids), [False] * len(token_ids), "", 0)])
