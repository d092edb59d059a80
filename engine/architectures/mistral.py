"""Mistral: Llama without biases, with an optional sliding window in all layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from engine.architectures import llama
from engine.architectures._gguf import Gguf, without_biases
from engine.architectures._keys import Keys
from engine.config import DecoderConfig


def _config_json(decoder: DecoderConfig) -> dict[str, Any]:
    return {**without_biases(decoder), "sliding_window": decoder.sliding_window or None}


TENSORS = llama.TENSORS
GGUF = Gguf("llama", "MistralForCausalLM", _config_json)  # llama.cpp runs it as a Llama


def decoder_config(config: Mapping[str, Any]) -> DecoderConfig:
    """A sliding_window of null is none; without the key it is 4096, as in transformers."""
    keys = Keys({"sliding_window": 4096, "max_position_embeddings": 131_072, **config})
    return replace(
        llama.decoder_config(keys.values),
        architecture="mistral",
        qkv_bias=False,
        o_bias=False,
        mlp_bias=False,
        sliding_window=keys.whole("sliding_window", 0, least=0),
    )
