"""Qwen2 and Qwen2.5: Llama with biases on q, k and v, and a sliding window in some layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from engine.architectures import llama
from engine.architectures._gguf import Gguf, without_biases
from engine.architectures._keys import Keys, layer_types
from engine.config import DecoderConfig

TENSORS = llama.TENSORS
GGUF = Gguf("qwen2", "Qwen2ForCausalLM", without_biases)


def decoder_config(config: Mapping[str, Any]) -> DecoderConfig:
    keys = Keys({"max_position_embeddings": 32_768, **config})
    decoder = replace(
        llama.decoder_config(keys.values),
        architecture="qwen2",
        qkv_bias=True,
        o_bias=False,
        mlp_bias=False,
    )
    first = keys.whole("max_window_layers", 28, least=0)
    full = layer_types(keys, decoder.n_layers, lambda i: i < first)
    if not keys.flag("use_sliding_window") or len(full) == decoder.n_layers:
        return decoder
    window = keys.whole("sliding_window", 4096)
    return replace(decoder, sliding_window=window, full_attention_layers=full)
