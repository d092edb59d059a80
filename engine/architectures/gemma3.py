"""Gemma 3: as Gemma 2, but norms of queries and keys instead of soft caps, and a rotation of their
own in layers with a window. Of models that see pictures, the part that reads and writes text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from engine.architectures import gemma2
from engine.architectures._gguf import Gguf
from engine.architectures._gguf import Keys as GgufKeys
from engine.architectures._keys import Keys
from engine.architectures._names import layers, tensors
from engine.architectures._rope import rope
from engine.config import DecoderConfig

LAYOUT = gemma2.LAYOUT
EVERY = 6
TENSORS = gemma2.TENSORS | tensors(
    layers("model.layers.{i}", {"q_norm": "self_attn.q_norm", "k_norm": "self_attn.k_norm"})
)
_DEFAULTS = {
    "vocab_size": 262_208,
    "max_position_embeddings": 131_072,
    "head_dim": 256,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "tie_word_embeddings": True,
    "sliding_window": 4096,
    "query_pre_attn_scalar": 256,
    "rope_theta": 1_000_000.0,
}


def _config_json(decoder: DecoderConfig) -> dict[str, Any]:
    local = decoder.local_rope or decoder.rope
    keys = {"model_type": "gemma3_text", "rope_local_base_freq": local.theta}
    return gemma2.config_json(decoder) | keys


def _more_keys(own: GgufKeys, tensors: GgufKeys, found: GgufKeys) -> dict[str, Any]:
    # without a window llama.cpp has none, where Hugging Face's config has 4096
    keys = {"sliding_window": own.get("attention.sliding_window", 0)}
    return gemma2.gguf_keys(own, found, 62, EVERY) | keys


GGUF = Gguf(
    "gemma3",
    "Gemma3ForCausalLM",
    _config_json,
    _more_keys,
    activations=("gelu_tanh",),
    window_pattern=EVERY,
)


def decoder_config(config: Mapping[str, Any]) -> DecoderConfig:
    """As transformers' Gemma3TextConfig; of a Gemma3Config, its text_config."""
    own = config.get("text_config") if config.get("model_type") == "gemma3" else None
    keys = Keys({**_DEFAULTS, **(own if isinstance(own, Mapping) else config)})
    local = Keys({"rope_theta": keys.number("rope_local_base_freq", 10_000.0, above=1.0)})
    kinds = keys.below("rope_parameters").values
    if isinstance(kinds.get("sliding_attention"), Mapping):
        local = Keys({"rope_parameters": kinds["sliding_attention"]})
    flat = {key: value for key, value in keys.values.items() if key != "rope_parameters"}
    if isinstance(kinds.get("full_attention"), Mapping):
        flat["rope_parameters"] = kinds["full_attention"]
    decoder = gemma2.common(Keys(flat), "gemma3", keys.whole("sliding_window_pattern", EVERY))
    return replace(
        decoder,
        qk_norm=True,
        local_rope=rope(local, decoder.head_dim, decoder.max_seq_len),
    )
