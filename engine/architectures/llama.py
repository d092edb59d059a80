"""Llama 1 to 3, TinyLlama, OpenLlama, SmolLM2 and all others that call themselves llama."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.architectures._gguf import Gguf, llama_json
from engine.architectures._keys import MAX_LAYERS, Keys, activation, head_dim
from engine.architectures._rope import rope
from engine.config import DecoderConfig

_MODULES = {
    "embedding": "model.embed_tokens",
    "final_norm": "model.norm",
    "head": "lm_head",
    "layers.{i}.attention_norm": "model.layers.{i}.input_layernorm",
    "layers.{i}.wq": "model.layers.{i}.self_attn.q_proj",
    "layers.{i}.wk": "model.layers.{i}.self_attn.k_proj",
    "layers.{i}.wv": "model.layers.{i}.self_attn.v_proj",
    "layers.{i}.wo": "model.layers.{i}.self_attn.o_proj",
    "layers.{i}.ffn_norm": "model.layers.{i}.post_attention_layernorm",
    "layers.{i}.w_gate": "model.layers.{i}.mlp.gate_proj",
    "layers.{i}.w_up": "model.layers.{i}.mlp.up_proj",
    "layers.{i}.w_down": "model.layers.{i}.mlp.down_proj",
}
TENSORS = {ours: f"{theirs}.weight" for ours, theirs in _MODULES.items()} | {
    f"{ours}.bias": f"{theirs}.bias" for ours, theirs in _MODULES.items() if "layers" in ours
}
GGUF = Gguf("llama", "LlamaForCausalLM", llama_json)


def decoder_config(config: Mapping[str, Any]) -> DecoderConfig:
    """Like transformers' LlamaConfig, which knows no sliding window, whatever the config says."""
    keys = Keys(config)
    hidden_size = keys.whole("hidden_size")
    n_heads = keys.whole("num_attention_heads")
    size = head_dim(keys, hidden_size, n_heads)
    max_seq_len = keys.whole("max_position_embeddings", 2048)
    attention_bias = keys.flag("attention_bias")
    return DecoderConfig(
        architecture="llama",
        vocab_size=keys.whole("vocab_size"),
        hidden_size=hidden_size,
        intermediate_size=keys.whole("intermediate_size"),
        n_layers=keys.whole("num_hidden_layers", most=MAX_LAYERS),
        n_heads=n_heads,
        n_kv_heads=keys.whole("num_key_value_heads", n_heads),
        head_dim=size,
        max_seq_len=max_seq_len,
        norm_eps=keys.number("rms_norm_eps", 1e-6),
        rope=rope(keys, size, max_seq_len),
        qkv_bias=attention_bias,
        o_bias=keys.flag("attention_out_bias", attention_bias),
        activation=activation(keys),
        mlp_bias=keys.flag("mlp_bias"),
        tied_head=keys.flag("tie_word_embeddings"),
    )
