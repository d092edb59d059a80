"""What a run leaves behind for the shell: an adapter, or a whole model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.paths import data_dir, models_dir
from engine.adapters import Adapter, Base, trained_adapter, write_adapter
from engine.export.exporting import to_huggingface
from engine.export.source import Source
from engine.training.examples import Example
from engine.training.packing import batch_of
from engine.training.settings import TrainSettings
from engine.training.subject import Subject


def adapter_of(name: str, model: Any, settings: TrainSettings, subject: Subject) -> Adapter | None:
    """What LoRA has learned so far; None for methods that change the weights themselves."""
    if settings.method != "lora":
        return None
    scale = settings.alpha / settings.rank
    adapter = trained_adapter(name, model.adapter_matrices(), scale, subject.config)
    return adapter._replace(base_fingerprint=subject.fingerprint, base_name=subject.model_name)


def result_folder(name: str, settings: TrainSettings) -> Path:
    """Where the result of this run will be."""
    return data_dir() / "adapters" / name if settings.method == "lora" else models_dir() / name


def write_result(name: str, model: Any, settings: TrainSettings, subject: Subject) -> Path:
    """The adapter's folder in PEFT's layout, or a Hugging Face directory."""
    folder = result_folder(name, settings)
    adapter = adapter_of(name, model, settings, subject)
    if adapter is not None:
        architecture = str(subject.checkpoint.config["model_type"])
        base = Base(subject.model_name, subject.fingerprint, architecture)
        return write_adapter(folder, adapter, base)
    source = Source(subject.checkpoint, tensors=model.full_tensors())
    to_huggingface(folder, source, lambda ids: _logits(model, ids), base=subject.model_name)
    return folder


def _logits(model: Any, token_ids: Sequence[int]) -> NDArray[np.float32]:
    """(T, vocab_size) of one text, to compare what was written with."""
    batch = batch_of([Example(list(token_ids), [False] * len(token_ids), "", 0)])
    model.train(False)
    found: NDArray[np.float32] = model.logits(batch).numpy()
    return found
