"""Gemma 2: norms behind branches too, soft caps, a window in every other layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from engine.architectures import llama
from engine.architectures._keys import Keys, layer_types
from engine.architectures._layout import Layout
from engine.architectures._names import layers, tensors
from engine.config import DecoderConfig

LAYOUT = Layout(norm_offset=1.0)
TENSORS = tensors(
    {
        "embedding": "model.embed_tokens",
        "final_norm": "model.norm",
        "head": "lm_head",
        **layers(
            "model.layers.{i}",
            {
                "attention_norm": "input_layernorm",
                "wq": "self_attn.q_proj",
                "wk": "self_attn.k_proj",
                "wv": "self_attn.v_proj",
                "wo": "self_attn.o_proj",
                "attention_post_norm": "post_attention_layernorm",
                "ffn_norm": "pre_feedforward_layernorm",
                "w_gate": "mlp.gate_proj",
                "w_up": "mlp.up_proj",
                "w_down": "mlp.down_proj",
                "ffn_post_norm": "post_feedforward_layernorm",
            },
        ),
    }
)
_DEFAULTS = {
    "max_position_embeddings": 8192,
    "head_dim": 256,
    "tie_word_embeddings": True,
    "sliding_window": 4096,
    "query_pre_attn_scalar": 256,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
}


def decoder_config(config: Mapping[str, Any]) -> DecoderConfig:
    """As transformers' Gemma2Config."""
    return common(Keys(_DEFAULTS | dict(config)), "gemma2", every=2)


def common(keys: Keys, architecture: str, every: int) -> DecoderConfig:
    """What Gemma 2 and 3 share; of `every` layers one, the last, sees everything."""
    activation = keys.values.get("hidden_activation") or "gelu_pytorch_tanh"
    decoder = llama.decoder_config({**keys.values, "hidden_act": activation})
    full = layer_types(keys, decoder.n_layers, lambda i: (i + 1) % every == 0)
    has_window = keys.whole("sliding_window", 0, least=0) and len(full) < decoder.n_layers
    return replace(
        decoder,
        architecture=architecture,
        post_norms=True,
        attention_scale=keys.number("query_pre_attn_scalar") ** -0.5,
        sliding_window=keys.whole("sliding_window") if has_window else 0,
        full_attention_layers=full if has_window else (),
        attention_softcap=keys.optional_number("attn_logit_softcapping") or 0.0,
        logit_softcap=keys.optional_number("final_logit_softcapping") or 0.0,
        embedding_scale=decoder.hidden_size**0.5,
    )
