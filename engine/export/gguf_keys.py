"""A Hugging Face checkpoint's config and tokenizer in GGUF's words, as llama.cpp reads them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.config import DecoderConfig, Rope
from engine.export.ggml_tokenizer import ggml_keys
from engine.export.source import Source
from engine.rope import inverse_frequencies

# model_type: general.architecture; llama.cpp runs Mistral as a Llama
ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2"}


def keys_of(source: Source, name: str) -> dict[str, Any]:
    """Key -> value. ValueError for what a file of this architecture cannot say."""
    config, checkpoint = source.config, source.checkpoint
    if config.architecture not in ARCHITECTURES:
        raise ValueError(
            f"{config.architecture} is not written as GGUF; known are {', '.join(ARCHITECTURES)}"
        )
    arch = ARCHITECTURES[config.architecture]
    _require_words(config)
    own = {
        "block_count": config.n_layers,
        "context_length": config.max_seq_len,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.n_heads,
        "attention.head_count_kv": config.n_kv_heads,
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
        "attention.layer_norm_rms_epsilon": float(config.norm_eps),
        "rope.dimension_count": config.rotary_dim,
        "rope.freq_base": float(config.rope.theta),
        "vocab_size": config.vocab_size,
        **_scaling(config.rope),
    }
    return {
        "general.architecture": arch,
        "general.type": "model",
        "general.name": name,
        **{f"{arch}.{key}": value for key, value in own.items()},
        **ggml_keys(checkpoint, config.vocab_size),
    }


def frequency_divisors(config: DecoderConfig) -> NDArray[np.float32] | None:
    """rope_freqs.weight, which is how GGUF says Llama 3's scaling; None without one."""
    if config.rope.scaling.kind != "llama3":
        return None
    size = config.rotary_dim
    scaled, _ = inverse_frequencies(config.rope, size, 0, config.max_seq_len)
    plain, _ = inverse_frequencies(Rope(config.rope.theta), size, 0, config.max_seq_len)
    return np.ascontiguousarray(plain / scaled, np.float32)


def _require_words(config: DecoderConfig) -> None:
    scaling = config.rope.scaling
    said = None
    if config.sliding_window:
        said = f"a sliding window of {config.sliding_window} tokens"
    elif config.activation != "silu":
        said = f"the activation {config.activation}"
    elif config.rotary_dim != config.head_dim:
        said = f"a rotation of {config.rotary_dim} of {config.head_dim} dimensions"
    elif scaling.kind == "dynamic":
        said = "dynamic scaling of the rotation"
    elif scaling.mscale is not None or scaling.mscale_all_dim is not None or not scaling.truncate:
        said = "DeepSeek's variant of YaRN"
    if said:
        raise ValueError(
            f"a GGUF file of {ARCHITECTURES[config.architecture]} has no words for {said}; a "
            "Hugging Face directory has"
        )


def _scaling(rope: Rope) -> dict[str, Any]:
    scaling = rope.scaling
    if scaling.kind == "linear":
        return {"rope.scaling.type": "linear", "rope.scaling.factor": float(scaling.factor)}
    if scaling.kind != "yarn":
        return {}
    found: dict[str, Any] = {
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": float(scaling.factor),
        "rope.scaling.original_context_length": scaling.original_max_seq_len,
        "rope.scaling.yarn_beta_fast": float(scaling.beta_fast),
        "rope.scaling.yarn_beta_slow": float(scaling.beta_slow),
    }
    if scaling.attention_factor is not None:
        found["rope.scaling.yarn_attn_factor"] = float(scaling.attention_factor)
    return found
