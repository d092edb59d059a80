"""Gemma 2: norms behind branches too, soft caps, a window in every other layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from engine.architectures import llama
from engine.architectures._gguf import HF_ACTIVATIONS, Gguf, tidy, without_biases
from engine.architectures._gguf import Keys as GgufKeys
from engine.architectures._keys import MAX_LAYERS, Keys, layer_types
from engine.architectures._layout import Layout
from engine.architectures._names import layers, tensors
from engine.config import DecoderConfig

LAYOUT = Layout(norm_offset=1.0)
EVERY = 2  # of so many layers the last sees everything
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


def config_json(decoder: DecoderConfig) -> dict[str, Any]:
    """Of Gemma 2, and what Gemma 3 has of it."""
    keys = without_biases(decoder)
    del keys["hidden_act"]
    full = decoder.full_attention_layers if decoder.sliding_window else range(decoder.n_layers)
    kinds = {True: "full_attention", False: "sliding_attention"}
    return keys | {
        "hidden_activation": HF_ACTIVATIONS[decoder.activation],
        "query_pre_attn_scalar": tidy((decoder.attention_scale or 1.0) ** -2),
        "sliding_window": decoder.sliding_window or decoder.max_seq_len,
        "layer_types": [kinds[i in full] for i in range(decoder.n_layers)],
        "attn_logit_softcapping": decoder.attention_softcap or None,
        "final_logit_softcapping": decoder.logit_softcap or None,
    }


def gguf_keys(own: GgufKeys, found: GgufKeys, n_layers_of_27b: int, every: int) -> dict[str, Any]:
    """What llama.cpp knows of Gemma 2 and 3 without its being in the file."""
    hidden_size, n_heads = found.get("hidden_size"), found.get("num_attention_heads")
    n_layers = found.get("num_hidden_layers")
    keys: dict[str, Any] = {"rope_theta": found.get("rope_theta", 10_000.0)}
    if isinstance(hidden_size, int) and isinstance(n_heads, int) and n_heads:
        plain = hidden_size // n_heads
        keys["head_dim"] = found.get("head_dim", plain)
        keys["query_pre_attn_scalar"] = plain if n_layers == n_layers_of_27b else keys["head_dim"]
        keys["num_key_value_heads"] = found.get("num_key_value_heads", n_heads)
    pattern = own.get("attention.sliding_window_pattern", every)
    if isinstance(pattern, list):
        kinds = {True: "sliding_attention", False: "full_attention"}
        keys["layer_types"] = [kinds[bool(is_local)] for is_local in pattern]
    elif isinstance(pattern, int) and isinstance(n_layers, int) and n_layers <= MAX_LAYERS:
        local = [pattern > 0 and (i + 1) % pattern != 0 for i in range(n_layers)]
        keys["layer_types"] = ["sliding_attention" if yes else "full_attention" for yes in local]
    return keys


def _more_keys(own: GgufKeys, tensors: GgufKeys, found: GgufKeys) -> dict[str, Any]:
    return gguf_keys(own, found, 46, EVERY)


GGUF = Gguf(
    "gemma2",
    "Gemma2ForCausalLM",
    config_json,
    _more_keys,
    activations=("gelu_tanh",),
    head="tied",
    window_pattern=EVERY,
    needs_window=True,
)


def decoder_config(config: Mapping[str, Any]) -> DecoderConfig:
    """As transformers' Gemma2Config."""
    return common(Keys(_DEFAULTS | dict(config)), "gemma2", EVERY)


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
