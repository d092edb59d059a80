"""config.json and generation_config.json of what is written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from engine.checkpoints import Checkpoint
from engine.checkpoints.gguf import GGUFCheckpoint
from engine.config import DecoderConfig, Rope, RopeScaling
from engine.export.source import Source
from engine.rope import inverse_frequencies

_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_CLASSES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
}
# Checkpoint.config's keys that Hugging Face has not
_OURS = ("rope_interleaved", "rope_frequency_divisors", "attention_out_bias")
# of Llama 3.1, 3.2 and 3.3; GGUF has only what comes of them
_LLAMA3 = {
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
_SAMPLING = ("temperature", "top_k", "top_p", "min_p")


def config_json(source: Source, number: str) -> dict[str, Any]:
    """The checkpoint's keys in Hugging Face's words. ValueError where it has none for them."""
    checkpoint, config = source.checkpoint, source.config
    keys = dict(checkpoint.config)
    dtype = {"dtype": _DTYPES[number], "torch_dtype": _DTYPES[number]}
    if not isinstance(checkpoint, GGUFCheckpoint):
        keys["tie_word_embeddings"] = config.tied_head
        return keys | {key: value for key, value in dtype.items() if key in keys or key == "dtype"}
    if config.architecture not in _CLASSES:
        raise ValueError(
            f"{config.architecture} is not written as a Hugging Face directory; known are "
            f"{', '.join(_CLASSES)}"
        )
    _require_biases(checkpoint, config)
    if divisors := keys.get("rope_frequency_divisors"):
        keys["rope_scaling"] = _llama3_scaling(config, divisors)
    for key, value in keys.items():
        if isinstance(value, float):
            keys[key] = float(str(np.float32(value)))  # 1e-05, which GGUF has as 9.99999974e-06
    keys |= {name: value for name, value in checkpoint.generation_config.items() if "token" in name}
    return {
        "architectures": [_CLASSES[config.architecture]],
        **{key: value for key, value in keys.items() if key not in _OURS},
        "hidden_act": "silu",
        "head_dim": config.head_dim,
        **dtype,
    }


def generation_json(checkpoint: Checkpoint) -> dict[str, Any]:
    """Ends of answers, and how to sample where the checkpoint says so."""
    keys = dict(checkpoint.generation_config)
    if any(name in keys for name in _SAMPLING):
        keys["do_sample"] = True  # transformers complains of a temperature without it
    return keys


def _require_biases(checkpoint: Checkpoint, config: DecoderConfig) -> None:
    if config.architecture == "llama" and config.qkv_bias != config.o_bias:
        raise ValueError(
            f"{checkpoint.path.name}: biases of q, k, v and o differ in being there, which a "
            "Hugging Face Llama cannot say"
        )


def _llama3_scaling(config: DecoderConfig, divisors: Any) -> Mapping[str, Any]:
    """The rope_scaling that gives these divisors; ValueError where no known one does."""
    factor = float(round(max(divisors)))
    scaling = RopeScaling(
        "llama3",
        factor=factor,
        original_max_seq_len=int(_LLAMA3["original_max_position_embeddings"]),
        low_freq_factor=_LLAMA3["low_freq_factor"],
        high_freq_factor=_LLAMA3["high_freq_factor"],
    )
    size = config.rotary_dim
    plain, scaled = (
        inverse_frequencies(Rope(config.rope.theta, kind), size, 0, config.max_seq_len)[0]
        for kind in (RopeScaling(), scaling)
    )
    if factor <= 1 or not np.allclose(plain / scaled, divisors, rtol=1e-4):
        raise ValueError(
            "rope_freqs.weight is none of Llama 3's scalings, so config.json has no words for it"
        )
    return {"rope_type": "llama3", "factor": factor, **_LLAMA3}
