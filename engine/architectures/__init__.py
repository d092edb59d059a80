"""Architectures: one file per model_type that reads a config.json into the canonical decoder.

Each has `decoder_config(config) -> DecoderConfig` and `TENSORS`, canonical name → Hugging Face
name (_names.py), and, where tensors are stored otherwise than the decoder has them, `LAYOUT`
(_layout.py). Modules whose names begin with an underscore are shared by architectures.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from typing import Any

from engine.architectures._layout import Layout
from engine.config import DecoderConfig

__all__ = ["ARCHITECTURES", "Layout", "architecture", "decoder_config", "layout"]

ARCHITECTURES = {m.name for m in iter_modules(__path__) if not m.name.startswith("_")}


def architecture(model_type: object) -> ModuleType:
    """engine/architectures/<model_type>.py. ValueError when there is none."""
    if not isinstance(model_type, str):
        raise ValueError(f"model_type must be a name, got {model_type!r}")
    # the list is checked first: faults inside a file surface, and the string never reaches import
    if model_type not in ARCHITECTURES:
        raise ValueError(
            f"model_type {model_type[:80]!r} is not known; this build has "
            f"{', '.join(sorted(ARCHITECTURES))}"
        )
    return import_module(f"{__name__}.{model_type}")


def decoder_config(config: Mapping[str, Any]) -> DecoderConfig:
    """The canonical decoder that a config.json describes. ValueError names the key at fault."""
    found: DecoderConfig = architecture(config.get("model_type")).decoder_config(config)
    return found


def layout(model_type: object) -> Layout:
    """How Hugging Face checkpoints of this model_type store their tensors."""
    found: Layout = getattr(architecture(model_type), "LAYOUT", Layout())
    return found
