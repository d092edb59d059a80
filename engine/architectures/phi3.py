"""Phi-3 and Phi-4-mini: Llama with fused projections and, for long texts, LongRoPE."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from engine.architectures import mistral
from engine.architectures._gguf import QKV, Gguf, Keys, without_biases
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


def _config_json(decoder: DecoderConfig) -> dict[str, Any]:
    keys = without_biases(decoder)
    del keys["head_dim"]
    # without a pad_token_id transformers takes one of Phi-3's own vocabulary
    return {"pad_token_id": None, **keys, "sliding_window": decoder.sliding_window or None}


def _more_keys(own: Keys, tensors: Keys, found: Keys) -> dict[str, Any]:
    """LongRoPE, whose factors are tensors; without them the original length says nothing."""
    factors = {kind: tensors.get(f"rope_factors_{kind}.weight") for kind in ("long", "short")}
    given = {
        f"{kind}_factor": t.float32().ravel().tolist()
        for kind, t in factors.items()
        if t is not None
    }
    if not given:
        return {}
    if len(given) == 1:
        there, other = ("long", "short") if factors["long"] is not None else ("short", "long")
        raise ValueError(
            f"rope_factors_{there}.weight is there, rope_factors_{other}.weight is not"
        )
    original = own.get("rope.scaling.original_context_length")
    scaling = {
        "rope_type": "longrope",
        "original_max_position_embeddings": original,
        "attention_factor": own.get("rope.scaling.attn_factor", 1.0),
    }
    return {"rope_scaling": {**scaling, **given}}


GGUF = Gguf(
    "phi3",
    "Phi3ForCausalLM",
    _config_json,
    _more_keys,
    fused={**QKV, "w_gate": "ffn_up", "w_up": "ffn_up"},
    window_pattern=0,
)


def decoder_config(config: Mapping[str, Any]) -> DecoderConfig:
    """As transformers' Phi3Config."""
    defaults = {"max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "sliding_window": None}
    return replace(mistral.decoder_config({**defaults, **config}), architecture="phi3")
