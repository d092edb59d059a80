"""Architectures: one file per model_type that reads a config.json into the canonical decoder.

Each has `decoder_config(config) -> DecoderConfig` and `TENSORS`, canonical name → Hugging Face
name (_names.py), and, where tensors are stored otherwise than the decoder has them, `LAYOUT`
(_layout.py), and `GGUF` (_gguf.py), where llama.cpp has files of it. Modules whose names begin with
an underscore are shared by architectures.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from typing import Any

from engine.architectures._gguf import Gguf
from engine.architectures._layout import Layout
from engine.config import DecoderConfig

__all__ = [
    "ARCHITECTURES",
    "Gguf",
    "Layout",
    "architecture",
    "decoder_config",
    "gguf",
    "layout",
    "model_type_of_gguf",
]

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


def gguf(model_type: object) -> Gguf | None:
    """How llama.cpp's files hold this model_type; None where it has none."""
    found: Gguf | None = getattr(architecture(model_type), "GGUF", None)
    return found


def model_type_of_gguf(name: str) -> str:
    """The model_type of a general.architecture; the name itself where there is none."""
    if name in ARCHITECTURES:
        return name
    known = ((model_type, gguf(model_type)) for model_type in sorted(ARCHITECTURES))
    return next((model_type for model_type, own in known if own and own.name == name), name)
