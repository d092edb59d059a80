"""What llama.cpp's GGUF files have of an architecture, and config.json for a model from one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from engine.config import DecoderConfig, Rope

# q, k and v in one tensor, one after another
QKV = dict.fromkeys(("wq", "wk", "wv"), "attn_qkv")
BIASES = ("wq", "wk", "wv", "wo", "w_up", "w_down")
HF_ACTIVATIONS = {"silu": "silu", "gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "relu": "relu"}

Keys = Mapping[str, Any]


def nothing_more(own: Keys, tensors: Mapping[str, Any], found: Keys) -> dict[str, Any]:
    return {}


class Gguf(NamedTuple):
    """GGUF in an architecture's file; llama.cpp has no such files of one without it.

    name         general.architecture
    hf_class     transformers' class
    config_json  what decoder_config would read as this decoder
    more_keys    (keys below "<name>.", tensors by stored name, keys so far) → what else config.json
                 would say; an architecture's defaults must not stand in for llama.cpp's
    fused        matrices of a layer that lie in one tensor, in its order → the tensor's name
    activations  that llama.cpp computes; the first is that of a file that names none
    head         whether llama.cpp looks for a head beside the embedding
    biases       matrices of a layer whose bias must be there, zeros if need be
    says_residual   whether the file says if the branches of a layer stand side by side
    window_pattern  None: llama.cpp knows no sliding window; 0: in all layers; n: of n layers the
                    last has none
    needs_window    whether llama.cpp cannot do without one
    """

    name: str
    hf_class: str
    config_json: Callable[[DecoderConfig], dict[str, Any]]
    more_keys: Callable[[Keys, Mapping[str, Any], Keys], dict[str, Any]] = nothing_more
    fused: Mapping[str, str] = {}
    activations: tuple[str, ...] = ("silu",)
    head: Literal["either", "own", "tied"] = "either"
    biases: tuple[str, ...] = ()
    says_residual: bool = False
    window_pattern: int | None = None
    needs_window: bool = False


def llama_json(decoder: DecoderConfig) -> dict[str, Any]:
    """In the words that most families share."""
    return {
        "vocab_size": decoder.vocab_size,
        "hidden_size": decoder.hidden_size,
        "intermediate_size": decoder.intermediate_size,
        "num_hidden_layers": decoder.n_layers,
        "num_attention_heads": decoder.n_heads,
        "num_key_value_heads": decoder.n_kv_heads,
        "head_dim": decoder.head_dim,
        "max_position_embeddings": decoder.max_seq_len,
        "rms_norm_eps": decoder.norm_eps,
        "hidden_act": HF_ACTIVATIONS[decoder.activation],
        "attention_bias": decoder.qkv_bias,
        "mlp_bias": decoder.mlp_bias,
        "tie_word_embeddings": decoder.tied_head,
        **rope_json(decoder.rope),
    }


def without_biases(decoder: DecoderConfig) -> dict[str, Any]:
    """llama_json for families that have no keys for biases."""
    keys = llama_json(decoder)
    del keys["attention_bias"], keys["mlp_bias"]
    return keys


def rope_json(rope: Rope) -> dict[str, Any]:
    """The rotation in the older spelling, which every version of transformers reads."""
    keys: dict[str, Any] = {"rope_theta": rope.theta}
    if rope.fraction != 1:
        keys["partial_rotary_factor"] = rope.fraction
    scaling = rope.scaling
    if scaling.kind == "none":
        return keys
    # Phi-3's own check in transformers 4 wants the older word, and just it and the factors
    kind = "type" if scaling.kind == "longrope" else "rope_type"
    found: dict[str, Any] = {kind: scaling.kind, "factor": scaling.factor}
    if scaling.kind == "llama3":
        found["low_freq_factor"] = scaling.low_freq_factor
        found["high_freq_factor"] = scaling.high_freq_factor
    if scaling.kind == "yarn":
        found |= {"beta_fast": scaling.beta_fast, "beta_slow": scaling.beta_slow}
    if scaling.kind in ("llama3", "yarn"):
        found["original_max_position_embeddings"] = scaling.original_max_seq_len
    if scaling.kind == "longrope":
        keys["original_max_position_embeddings"] = scaling.original_max_seq_len
        found["short_factor"] = list(scaling.short_factors)
        found["long_factor"] = list(scaling.long_factors)
        del found["factor"]
    if scaling.attention_factor is not None:
        found["attention_factor"] = scaling.attention_factor
    return {**keys, "rope_scaling": found}


def tidy(number: float) -> float | int:
    """8 instead of 8.0 or 7.9999998, where transformers wants whole numbers."""
    whole = round(number)
    return whole if abs(number - whole) <= 1e-5 * abs(number) else number
