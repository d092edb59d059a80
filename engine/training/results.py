"""What a run leaves behind for the shell: an adapter, or a whole model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data.paths import data_dir, models_dir
from engine.adapters import Adapter, Base, trained_adapter, write_adapter
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
    raise ValueError(f"results of method {settings.method} cannot be written yet")
