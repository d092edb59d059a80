"""config.json and generation_config.json of what is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from engine import architectures
from engine.checkpoints import Checkpoint
from engine.checkpoints.gguf import GGUFCheckpoint
from engine.config import DecoderConfig, Rope, RopeScaling
from engine.export.source import Source
from engine.export.words import plain_rope, require_said
from engine.rope import inverse_frequencies

_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
# of Llama 3.1, 3.2 and 3.3; GGUF has only what comes of them
_LLAMA3 = RopeScaling(
    "llama3", original_max_seq_len=8192, low_freq_factor=1.0, high_freq_factor=4.0
)
_SAMPLING = ("temperature", "top_k", "top_p", "min_p")


def config_json(source: Source, number: str) -> dict[str, Any]:
    """The model in Hugging Face's words. ValueError where it has none for it."""
    if isinstance(source.checkpoint, GGUFCheckpoint):
        return _from_decoder(source, number)
    keys = dict(source.checkpoint.config)
    if isinstance(text := keys.get("text_config"), Mapping):  # of a model that sees pictures, too
        keys = {**text, "model_type": f"{keys['model_type']}_text"}
        family = architectures.gguf(keys["model_type"])
        keys["architectures"] = [family.hf_class] if family else None
    keys["tie_word_embeddings"] = source.config.tied_head
    keys["dtype"] = _DTYPES[number]
    return keys | ({"torch_dtype": _DTYPES[number]} if "torch_dtype" in keys else {})


def generation_json(checkpoint: Checkpoint) -> dict[str, Any]:
    """Ends of answers, and how to sample where the checkpoint says so."""
    keys = dict(checkpoint.generation_config)
    if any(name in keys for name in _SAMPLING):
        keys["do_sample"] = True  # transformers complains of a temperature without it
    return keys


def _from_decoder(source: Source, number: str) -> dict[str, Any]:
    """In the words of the architecture, which must be read as the same decoder."""
    checkpoint, config = source.checkpoint, source.config
    family = architectures.gguf(config.architecture)
    assert family is not None  # it came from GGUF
    keys = {
        "architectures": [family.hf_class],
        "model_type": config.architecture,
        **_tidy(family.config_json(replace(config, rope=_named_rope(config)))),
        **{name: v for name, v in checkpoint.generation_config.items() if "token" in name},
        "dtype": _DTYPES[number],
        "torch_dtype": _DTYPES[number],
    }
    require_said(
        architectures.decoder_config(keys),
        config,
        f"{checkpoint.path.name}: config.json of {family.hf_class}",
        "a GGUF file has",
    )
    return keys


def _tidy(keys: Mapping[str, Any]) -> dict[str, Any]:
    """1e-05, which GGUF has as 9.99999974e-06."""

    def shortest(value: Any) -> Any:
        if isinstance(value, Mapping):
            return _tidy(value)
        if isinstance(value, list):
            return [shortest(item) for item in value]
        return float(str(np.float32(value))) if isinstance(value, float) else value

    return {key: shortest(value) for key, value in keys.items()}


def _named_rope(config: DecoderConfig) -> Rope:
    """With divisors as the scaling that they come of; ValueError where no known one does."""
    if config.position != "rope":
        return Rope()
    rope, size = config.rope, config.rotary_dim
    if not rope.frequency_divisors:
        return plain_rope(rope, size, config.max_seq_len)
    factor = float(round(max(rope.frequency_divisors)))
    named = Rope(rope.theta, replace(_LLAMA3, factor=factor), rope.fraction)
    plain, scaled = (
        inverse_frequencies(r, size, 0, config.max_seq_len)[0]
        for r in (replace(named, scaling=RopeScaling()), named)
    )
    if factor <= 1 or not np.allclose(plain / scaled, rope.frequency_divisors, rtol=1e-4):
        raise ValueError(
            "rope_freqs.weight is none of Llama 3's scalings, so config.json has no words for it"
        )
    return named
