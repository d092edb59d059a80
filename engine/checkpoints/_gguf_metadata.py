"""GGUF's metadata in Hugging Face's words, so that one architecture file serves both containers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from engine.architectures import ARCHITECTURES, gguf, model_type_of_gguf
from engine.checkpoints import RawTensor
from engine.checkpoints._gguf_file import Metadata
from engine.config import DecoderConfig

# config.json key: GGUF key below the architecture's name
CONFIG_KEYS = {
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "max_position_embeddings": "context_length",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "layer_norm_eps": "attention.layer_norm_epsilon",
    "rope_theta": "rope.freq_base",
    "sliding_window": "attention.sliding_window",
    "vocab_size": "vocab_size",
    "hidden_act": "hidden_activation",
    "use_parallel_residual": "use_parallel_residual",
    "rope_local_base_freq": "rope.freq_base_swa",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
}
# these pair neighbouring dimensions in the rotation (their converters permute wq and wk);
# all others pair the two halves of a head
INTERLEAVED_ROPE = frozenset({"llama", "mistral", "olmo", "granite", "smollm3", "internlm2"})

SAMPLING_KEYS = {
    "temperature": "temp",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "repetition_penalty": "penalty_repeat",
}


def config(metadata: Metadata, tensors: Mapping[str, RawTensor]) -> dict[str, Any]:
    """What config.json would say. Absent keys stay absent; the architecture reports them."""
    name = metadata["general.architecture"]
    own = metadata.below(f"{name}.")
    found = {key: _one(own[theirs]) for key, theirs in CONFIG_KEYS.items() if theirs in own}
    found["model_type"] = model_type_of_gguf(name)
    if isinstance(metadata.get("general.name"), str):
        found["_name_or_path"] = metadata["general.name"]
    found["tie_word_embeddings"] = "output.weight" not in tensors
    found["attention_bias"] = any(f"blk.0.attn_{q}.bias" in tensors for q in ("q", "qkv"))
    found["attention_out_bias"] = "blk.0.attn_output.bias" in tensors
    found["mlp_bias"] = "blk.0.ffn_up.bias" in tensors
    found["rope_interleaved"] = name in INTERLEAVED_ROPE
    if "token_embd.weight" in tensors:
        # the metadata's count is at times that before padding; ids index these rows
        found["vocab_size"] = tensors["token_embd.weight"].shape[0]
    elif isinstance(metadata.get("tokenizer.ggml.tokens"), list):
        found.setdefault("vocab_size", len(metadata["tokenizer.ggml.tokens"]))
    if "rope_freqs.weight" in tensors:
        divisors = tensors["rope_freqs.weight"].float32()
        found["rope_frequency_divisors"] = divisors.ravel().tolist()
    found.update(_rotary_fraction(own, found), **_rope_scaling(own))
    family = gguf(found["model_type"]) if found["model_type"] in ARCHITECTURES else None
    return found if family is None else found | family.more_keys(own, tensors, found)


def _one(value: Any) -> Any:
    """A per-layer list whose items are all equal as that item; others stay lists, to be refused."""
    if isinstance(value, list) and value and all(item == value[0] for item in value):
        return value[0]
    return value


def _rotary_fraction(own: Metadata, found: Mapping[str, Any]) -> dict[str, Any]:
    rotary_dim, head_dim = own.get("rope.dimension_count"), found.get("head_dim")
    hidden_size, n_heads = found.get("hidden_size"), found.get("num_attention_heads")
    if head_dim is None and isinstance(hidden_size, int) and isinstance(n_heads, int) and n_heads:
        head_dim = hidden_size // n_heads
    if not isinstance(rotary_dim, int) or not isinstance(head_dim, int) or rotary_dim == head_dim:
        return {}
    fraction = rotary_dim / head_dim if head_dim else 0.0
    if int(head_dim * fraction) < rotary_dim:
        fraction = math.nextafter(fraction, math.inf)
    return {"partial_rotary_factor": fraction}


def _rope_scaling(own: Metadata) -> dict[str, Any]:
    """rope.scaling.* as `rope_scaling`; a factor without a type means linear, as in llama.cpp."""
    factor = own.get("rope.scaling.factor", own.get("rope.scale_linear", 0.0))
    kind = own.get("rope.scaling.type", "linear")
    if kind == "none" or (kind == "linear" and factor in (0.0, 1.0)):
        return {}
    scaling: dict[str, Any] = {"rope_type": kind, "factor": factor}
    names = {
        "original_max_position_embeddings": "original_context_length",
        "attention_factor": "yarn_attn_factor",  # the converter writes Hugging Face's number there
        "beta_fast": "yarn_beta_fast",
        "beta_slow": "yarn_beta_slow",
    }
    for name, theirs in names.items():
        if f"rope.scaling.{theirs}" in own:
            scaling[name] = own[f"rope.scaling.{theirs}"]
    extra = own.get("rope.scaling.attn_factor", 1.0)
    numbers = isinstance(extra, float) and isinstance(factor, float) and factor > 1
    if kind == "yarn" and numbers and extra != 1.0:
        # llama.cpp multiplies this onto YaRN's own factor; Hugging Face's number is the product
        scaling["attention_factor"] = extra * (0.1 * math.log(factor) + 1.0)
    return {"rope_scaling": scaling}


def refuse_unsupported(metadata: Metadata, decoder: DecoderConfig) -> None:
    """ValueError for keys that would change the arithmetic and that the decoder does not have, and
    without the one that its norms need."""
    arch = metadata.get("general.architecture")
    own = metadata.below(f"{arch}.")
    unless = {
        "expert_count": (0,),
        "attention.value_length": (0, own.get("attention.key_length")),
        "attention.key_length_swa": (own.get("attention.key_length"),),
        "rope.dimension_count_swa": (own.get("rope.dimension_count"),),
        "attention.causal": (True,),
        "attention.scale": (0.0,),
        "attention.clamp_kqv": (0.0, decoder.clip_qkv),
        "attention.max_alibi_bias": (0.0, decoder.alibi_max_bias * (decoder.position == "alibi")),
        "attn_logit_softcapping": (0.0, decoder.attention_softcap),
        "final_logit_softcapping": (0.0, decoder.logit_softcap),
        "use_parallel_residual": (decoder.residual == "parallel",),
        "rope.scaling.yarn_ext_factor": (1.0, -1.0),
        "rope.scaling.yarn_log_multiplier": (0.0,),
    }
    for key, harmless in unless.items():
        if key in own and own[key] not in harmless:
            raise ValueError(f"{arch}.{key} is {own[key]!r}, which this build does not support")
    norm = "layer_norm_rms_epsilon" if decoder.norm == "rmsnorm" else "layer_norm_epsilon"
    if f"attention.{norm}" not in own:
        raise ValueError(f"{arch}.attention.{norm} is missing, which its {decoder.norm} needs")


def generation_config(metadata: Metadata) -> dict[str, Any]:
    """bos, eos (a list when the file also names end-of-turn tokens), pad and sampling defaults."""
    found: dict[str, Any] = {}
    ends = [metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom")]
    ends = list(dict.fromkeys(token_id for token_id in ends if type(token_id) is int))
    if ends:
        found["eos_token_id"] = ends if len(ends) > 1 else ends[0]
    for name, theirs in (("bos", "bos"), ("pad", "padding")):
        token_id = metadata.get(f"tokenizer.ggml.{theirs}_token_id")
        if type(token_id) is int:
            found[f"{name}_token_id"] = token_id
    for name, theirs in SAMPLING_KEYS.items():
        if isinstance(metadata.get(f"general.sampling.{theirs}"), int | float):
            found[name] = metadata[f"general.sampling.{theirs}"]
    return found


def ggml_tokenizer(metadata: Metadata) -> Metadata | None:
    """What stands below "tokenizer.ggml."; None when there is no vocabulary.

    ValueError unless tokens and merges are lists of strings, and scores and token_type lists of
    numbers, one per token.
    """
    ggml = metadata.below("tokenizer.ggml.")
    if "tokens" not in ggml or ggml.get("model", "no_vocab") in ("no_vocab", "none"):
        return None
    wanted = {"tokens": str, "merges": str, "scores": float, "token_type": int}
    for key, item_type in wanted.items():
        value = ggml.get(key, [])
        if not isinstance(value, list) or not all(type(item) is item_type for item in value):
            raise ValueError(f"tokenizer.ggml.{key} must be a list of {item_type.__name__}")
        if key in ("scores", "token_type") and key in ggml and len(value) != len(ggml["tokens"]):
            raise ValueError(
                f"tokenizer.ggml.{key} has {len(value)} items, there are "
                f"{len(ggml['tokens'])} tokens"
            )
    return ggml


def tokenizer_config(metadata: Metadata, ggml: Mapping[str, Any] | None) -> dict[str, Any]:
    """Special tokens as strings, flags and chat templates. ValueError for an id without a token."""
    found: dict[str, Any] = {}
    tokens = ggml["tokens"] if ggml else []
    for name, theirs in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        token_id = ggml.get(f"{theirs}_token_id") if ggml else None
        if token_id is None:
            continue
        if not isinstance(token_id, int) or not 0 <= token_id < len(tokens):
            raise ValueError(
                f"tokenizer.ggml.{theirs}_token_id is {token_id!r}, there are {len(tokens)} tokens"
            )
        found[f"{name}_token"] = tokens[token_id]
    for flag, theirs in (
        ("add_bos_token", "add_bos_token"),
        ("add_eos_token", "add_eos_token"),
        ("add_prefix_space", "add_space_prefix"),
    ):
        if ggml and isinstance(ggml.get(theirs), bool):
            found[flag] = ggml[theirs]
    templates = _chat_templates(metadata)
    if list(templates) == ["default"]:
        found["chat_template"] = templates["default"]
    elif templates:
        found["chat_template"] = [{"name": n, "template": t} for n, t in templates.items()]
    return found


def _chat_templates(metadata: Metadata) -> dict[str, str]:
    named = metadata.below("tokenizer.chat_template.")
    every = {"default": metadata.get("tokenizer.chat_template"), **named}
    return {name: text for name, text in every.items() if isinstance(text, str)}
