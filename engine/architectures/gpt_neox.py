"""GPT-NeoX: Pythia, RedPajama-INCITE, GPT-NeoXT-Chat; Dolly and StableLM-alpha, too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.architectures import _gpt
from engine.architectures._gguf import BIASES, QKV, Gguf, Keys
from engine.architectures._layout import Layout
from engine.architectures._names import layers, qkv, tensors
from engine.config import DecoderConfig

LAYOUT = Layout(by_head=True)
TENSORS = tensors(
    {
        "embedding": "gpt_neox.embed_in",
        "final_norm": "gpt_neox.final_layer_norm",
        "head": "embed_out",
        **layers(
            "gpt_neox.layers.{i}",
            {
                "attention_norm": "input_layernorm",
                **qkv("attention.query_key_value"),
                "wo": "attention.dense",
                "ffn_norm": "post_attention_layernorm",
                "w_up": "mlp.dense_h_to_4h",
                "w_down": "mlp.dense_4h_to_h",
            },
        ),
    }
)


def _config_json(decoder: DecoderConfig) -> dict[str, Any]:
    keys = _gpt.config_json(decoder)
    keys.pop("partial_rotary_factor", None)
    return keys | {
        "rotary_emb_base": keys.pop("rope_theta"),
        "rotary_pct": decoder.rope.fraction,
        "use_parallel_residual": decoder.residual == "parallel",
        "attention_bias": decoder.qkv_bias,
    }


def _more_keys(own: Keys, tensors: Keys, found: Keys) -> dict[str, Any]:
    return {"partial_rotary_factor": found.get("partial_rotary_factor", 1.0)}


GGUF = Gguf(
    "gptneox",
    "GPTNeoXForCausalLM",
    _config_json,
    _more_keys,
    fused=QKV,
    activations=("gelu", "gelu_tanh"),
    head="own",
    biases=BIASES,
    says_residual=True,
)


def decoder_config(config: Mapping[str, Any]) -> DecoderConfig:
    """As transformers' GPTNeoXConfig."""
    keys = _gpt.named(
        config,
        {
            "hidden_act": "gelu",
            "rope_theta": config.get("rotary_emb_base"),
            "partial_rotary_factor": config.get("rotary_pct") or 0.25,
        },
    )
    attention_bias = keys.flag("attention_bias", True)
    return _gpt.decoder_config(
        "gpt_neox",
        keys,
        qkv_bias=attention_bias,
        o_bias=attention_bias,
        residual="parallel" if keys.flag("use_parallel_residual", True) else "sequential",
    )
