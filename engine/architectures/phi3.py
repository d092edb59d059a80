"""Phi-3 and Phi-4-mini: Llama with fused projections and, for long texts, LongRoPE."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from engine.architectures import llama
from engine.architectures._keys import Keys
from engine.architectures._names import layers, qkv, tensors
from engine.config import DecoderConfig

TENSORS = tensors(
    {
        "embedding": "model.embed_tokens",
        "final_norm": "model.norm",
        "head": "lm_head",
        **layers(
            "model.layers.{i}",
            {
                "attention_norm": "input_layernorm",
                **qkv("self_attn.qkv_proj"),
                "wo": "self_attn.o_proj",
                "ffn_norm": "post_attention_layernorm",
                "w_gate": "mlp.gate_up_proj",
                "w_up": "mlp.gate_up_proj",
                "w_down": "mlp.down_proj",
            },
        ),
    }
)


def decoder_config(config: Mapping[str, Any]) -> DecoderConfig:
    """As transformers' Phi3Config."""
    keys = Keys({"max_position_embeddings": 4096, "rms_norm_eps": 1e-5, **config})
    return replace(
        llama.decoder_config(keys.values),
        architecture="phi3",
        qkv_bias=False,
        o_bias=False,
        mlp_bias=False,
        sliding_window=keys.whole("sliding_window", 0, least=0),
    )
