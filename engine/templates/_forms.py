"""Which fixed template a checkpoint without one of its own was trained on, by its names."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

# of names in small letters, "-" for every run of other signs; the first that fits
_BY_NAME = (
    (re.compile(r"(pythia|neoxt|incite)\b.*\bchat\b|openchatkit"), "human_bot"),
    (re.compile(r"llama-?2\b.*\b32k-instruct\b"), "llama2_32k"),
)
_TALKS = re.compile(r"\b(chat|instruct|assistant)\b")
_IN_CACHE = "models--"  # org--name
_LLAMA_3 = re.compile(r"llama-?[34]\b")


def form_of(path: Path, config: Mapping[str, Any], vocabulary: Container[str]) -> str:
    """The name of a template: "completion" where nothing says that the model takes turns.

    config  of the checkpoint: model_type and _name_or_path are read
    """
    if "<|im_start|>" in vocabulary:
        return "mpt" if config.get("model_type") == "mpt" else "chatml"
    found = _names(path, config)
    for pattern, form in _BY_NAME:
        if any(pattern.search(name) for name in found):
            return form
    if not any(_TALKS.search(name) for name in found):
        return "completion"
    is_llama = config.get("model_type") in ("llama", "mistral")
    is_newer = any(_LLAMA_3.search(name) for name in found)
    return "llama2" if is_llama and not is_newer else "plain"


def known_as(path: Path, config: Mapping[str, Any]) -> str:
    """What it was saved as, else the repository in the hub's cache, else the file or folder."""
    saved = config.get("_name_or_path")
    repository = next((part for part in path.parts if part.startswith(_IN_CACHE)), "")
    in_hub = repository.removeprefix(_IN_CACHE).replace("--", "/", 1)
    return str(saved) if saved else in_hub or path.name


def _names(path: Path, config: Mapping[str, Any]) -> list[str]:
    """Whatever it is called, each in small letters with "-" between words."""
    words = {known_as(path, config), known_as(path, {}), path.name}
    return [re.sub(r"[^a-z0-9]+", "-", word.lower()) for word in sorted(words)]
