"""MPT: ALiBi, no biases; as its own code computes it (transformers leaves some options out)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from engine.architectures import _gguf, llama
from engine.architectures._keys import Keys
from engine.architectures._names import layers, qkv, tensors
from engine.config import DecoderConfig

TENSORS = tensors(
    {
        "embedding": "transformer.wte",
        "position_embedding": "transformer.wpe",
        "final_norm": "transformer.norm_f",
        "head": "lm_head",
        **layers(
            "transformer.blocks.{i}",
            {
                "attention_norm": "norm_1",
                **qkv("attn.Wqkv"),
                "q_norm": "attn.q_ln",
                "k_norm": "attn.k_ln",
                "wo": "attn.out_proj",
                "ffn_norm": "norm_2",
                "w_up": "ffn.up_proj",
                "w_down": "ffn.down_proj",
            },
        ),
    }
)
_NAMES = {
    "d_model": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "max_seq_len": "max_position_embeddings",
    "layer_norm_epsilon": "layer_norm_eps",
}


def _config_json(decoder: DecoderConfig) -> dict[str, Any]:
    attention = {
        "alibi": decoder.position == "alibi",
        "alibi_bias_max": _gguf.tidy(decoder.alibi_max_bias),
        "clip_qkv": decoder.clip_qkv or None,
        "qk_ln": decoder.qk_norm_whole,
    }
    if decoder.n_kv_heads != decoder.n_heads:
        attention["kv_n_heads"] = decoder.n_kv_heads
    return {
        "d_model": decoder.hidden_size,
        "n_heads": decoder.n_heads,
        "n_layers": decoder.n_layers,
        "expansion_ratio": _gguf.tidy(decoder.intermediate_size / decoder.hidden_size),
        "max_seq_len": decoder.max_seq_len,
        "vocab_size": decoder.vocab_size,
        "layer_norm_epsilon": decoder.norm_eps,
        "learned_pos_emb": decoder.position == "learned",
        "no_bias": not decoder.norm_bias,
        "norm_type": "low_precision_layernorm",
        "tie_word_embeddings": decoder.tied_head,
        "attn_config": attention,
    }


def _more_keys(own: _gguf.Keys, tensors: _gguf.Keys, found: _gguf.Keys) -> dict[str, Any]:
    attention = {
        "alibi": own.get("attention.max_alibi_bias", 0.0) != 0.0,
        "alibi_bias_max": own.get("attention.max_alibi_bias") or None,
        "clip_qkv": own.get("attention.clamp_kqv"),
        "qk_ln": "blk.0.attn_q_norm.weight" in tensors,
    }
    return {
        "attn_config": attention,
        "learned_pos_emb": "position_embd.weight" in tensors,
        "no_bias": "blk.0.attn_norm.bias" not in tensors,
    }


GGUF = _gguf.Gguf(
    "mpt",
    "MptForCausalLM",
    _config_json,
    _more_keys,
    fused=_gguf.QKV,
    activations=("gelu", "gelu_tanh"),
)
_DEFAULTS = {"hidden_act": "gelu", "tie_word_embeddings": True, "max_position_embeddings": 2048}


def decoder_config(config: Mapping[str, Any]) -> DecoderConfig:
    """Keys of MPTConfig, or those of Llama, which GGUF's are translated to."""
    found = {_NAMES.get(key, key): value for key, value in config.items()}
    keys = Keys(_DEFAULTS | {key: value for key, value in found.items() if value is not None})
    attention = keys.below("attn_config")
    if not keys.has("intermediate_size"):
        ratio = keys.whole("expansion_ratio", 4)
        keys = Keys({**keys.values, "intermediate_size": ratio * keys.whole("hidden_size")})
    if attention.has("kv_n_heads"):
        keys = Keys({**keys.values, "num_key_value_heads": attention.whole("kv_n_heads")})
    biased, norms = not keys.flag("no_bias", True), keys.values.get("norm_type", "layernorm")
    if str(norms).removeprefix("low_precision_") not in ("layernorm", "rmsnorm"):
        raise keys.error("norm_type", "must be (low_precision_)layernorm or -rmsnorm")
    decoder = replace(
        llama.decoder_config(keys.values),
        architecture="mpt",
        norm="rmsnorm" if "rmsnorm" in str(norms) else "layernorm",
        norm_eps=keys.number("layer_norm_eps", 1e-5),
        norm_bias=biased,
        qkv_bias=biased,
        o_bias=biased,
        mlp_bias=biased,
        gated=False,
        position=_position(keys, attention),
        alibi_max_bias=attention.number("alibi_bias_max", 8.0),
        clip_qkv=attention.number("clip_qkv", 0.0, above=-1.0),
        qk_norm_whole=attention.flag("qk_ln"),
        attention_scale=attention.optional_number("softmax_scale"),
        logit_scale=_logit_scale(keys),
    )
    if decoder.qk_norm_whole and biased:
        raise attention.error("qk_ln", "with biases is not supported")
    if attention.flag("prefix_lm"):
        raise attention.error("prefix_lm", "is not supported")
    return decoder


def _position(keys: Keys, attention: Keys) -> Literal["alibi", "learned"]:
    if attention.flag("rope"):
        raise attention.error("rope", "is not supported; ALiBi and learned positions are")
    if attention.flag("alibi", True):
        return "alibi"
    if not keys.flag("learned_pos_emb", True):
        raise keys.error("learned_pos_emb", "must be true where attn_config.alibi is false")
    return "learned"


def _logit_scale(keys: Keys) -> float:
    """A number, or "inv_sqrt_d_model"."""
    if keys.values.get("logit_scale") == "inv_sqrt_d_model":
        return float(keys.whole("hidden_size") ** -0.5)
    return keys.number("logit_scale", 1.0)
