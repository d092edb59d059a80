"""What GPT-2, GPT-Neo, GPT-J and GPT-NeoX share: layer norms, a plain feed-forward, biases.

Their keys have several names; those of Llama, which GGUF's are translated to, count first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from engine.architectures import _names, llama
from engine.architectures._gguf import without_biases
from engine.architectures._keys import Keys
from engine.config import DecoderConfig

NAMES = {
    "hidden_size": ("n_embd",),
    "num_hidden_layers": ("n_layer", "num_layers"),
    "num_attention_heads": ("n_head", "num_heads"),
    "max_position_embeddings": ("n_positions", "n_ctx"),
    "intermediate_size": ("n_inner",),
    "hidden_act": ("activation_function",),
    "layer_norm_eps": ("layer_norm_epsilon",),
}


def tensors(layer: Mapping[str, str]) -> dict[str, str]:
    """The names of GPT-2, GPT-Neo and GPT-J, which differ within a layer alone."""
    whole = {
        "embedding": "transformer.wte",
        "position_embedding": "transformer.wpe",
        "final_norm": "transformer.ln_f",
        "head": "lm_head",
    }
    return _names.tensors({**whole, **_names.layers("transformer.h.{i}", layer)})


def named(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> Keys:
    """The config with Llama's names. An intermediate_size of null is four times hidden_size."""
    found = dict(config)
    for name, others in NAMES.items():
        for other in others:
            if found.get(name) is None and config.get(other) is not None:
                found[name] = config[other]
    for name, value in defaults.items():
        if found.get(name) is None:
            found[name] = value
    keys = Keys(found)
    if not keys.has("intermediate_size"):
        keys = Keys({**found, "intermediate_size": 4 * keys.whole("hidden_size")})
    return keys


def decoder_config(architecture: str, keys: Keys, **flags: Any) -> DecoderConfig:
    """With a bias on every matrix of a layer, unless the flags say otherwise."""
    common: dict[str, Any] = {
        "architecture": architecture,
        "norm": "layernorm",
        "norm_bias": True,
        "norm_eps": keys.number("layer_norm_eps", 1e-5),
        "gated": False,
        "qkv_bias": True,
        "o_bias": True,
        "mlp_bias": True,
    }
    # every head has keys and values of its own, whatever else a config says
    own = {**keys.values, "num_key_value_heads": None}
    return replace(llama.decoder_config(own), **(common | flags))


def config_json(decoder: DecoderConfig) -> dict[str, Any]:
    """What `decoder_config` would read as this decoder, in the words of Llama and GPT-NeoX."""
    keys = without_biases(decoder)
    del keys["num_key_value_heads"], keys["head_dim"]
    return keys | {"layer_norm_eps": keys.pop("rms_norm_eps")}
