"""Qwen2 and Qwen2.5: Llama with biases on q, k and v, and a sliding window in some layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from engine.architectures import llama
from engine.architectures._keys import Keys
from engine.config import DecoderConfig

TENSORS = llama.TENSORS


def decoder_config(config: Mapping[str, Any]) -> DecoderConfig:
    keys = Keys({"max_position_embeddings": 32_768, **config})
    decoder = replace(
        llama.decoder_config(keys.values),
        architecture="qwen2",
        qkv_bias=True,
        o_bias=False,
        mlp_bias=False,
    )
    full = _full_attention_layers(keys, decoder.n_layers)
    if not keys.flag("use_sliding_window") or len(full) == decoder.n_layers:
        return decoder
    window = keys.whole("sliding_window", 4096)
    return replace(decoder, sliding_window=window, full_attention_layers=full)


def _full_attention_layers(keys: Keys, n_layers: int) -> tuple[int, ...]:
    """By layer_types where it is given, else the first max_window_layers."""
    if not keys.has("layer_types"):
        return tuple(range(min(keys.whole("max_window_layers", 28, least=0), n_layers)))
    kinds = keys.values["layer_types"]
    known = ("full_attention", "sliding_attention")
    if not isinstance(kinds, list) or len(kinds) != n_layers or any(k not in known for k in kinds):
        raise keys.error("layer_types", f"must list {n_layers} times one of {', '.join(known)}")
    return tuple(i for i, kind in enumerate(kinds) if kind == "full_attention")
