"""A Hugging Face checkpoint's config and tokenizer in GGUF's words, as llama.cpp reads them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine import architectures
from engine.architectures import Gguf
from engine.architectures._gguf import HF_ACTIVATIONS
from engine.checkpoints import RawTensor, _gguf_metadata
from engine.checkpoints._gguf_file import Metadata
from engine.checkpoints._gguf_metadata import INTERLEAVED_ROPE
from engine.config import DecoderConfig, Rope
from engine.export.ggml_tokenizer import ggml_keys
from engine.export.source import Source
from engine.export.words import require_said
from engine.rope import inverse_frequencies

Tensors = Mapping[str, RawTensor]


def family_of(config: DecoderConfig) -> Gguf:
    """How llama.cpp's files hold it; ValueError where there are none of its architecture."""
    family = architectures.gguf(config.architecture)
    if family is None:
        raise ValueError(
            f"llama.cpp has no GGUF files of {config.architecture}, so none is written; a Hugging "
            "Face directory is the way: --to FOLDER"
        )
    return family


def keys_of(source: Source, name: str, tensors: Tensors) -> dict[str, Any]:
    """Key -> value. ValueError for what a file of this architecture cannot say.

    tensors  stored name -> what is to stand in the file; of matrices the shapes count alone
    """
    config = source.config
    family = family_of(config)
    own = {f"{family.name}.{key}": value for key, value in _own_keys(config, family).items()}
    keys = {"general.architecture": family.name, **own}
    _require_words(config, family)
    _require_read_back(config, family, keys, tensors)
    tokenizer = ggml_keys(source.checkpoint, config.vocab_size)
    name = _harmless(name, tokenizer.get("tokenizer.ggml.tokens", ()))
    return {**keys, "general.type": "model", "general.name": name, **tokenizer}


def vectors_of(config: DecoderConfig) -> dict[str, NDArray[np.float32]]:
    """Tensors of a file that are no weights: what divides the frequencies of the rotation."""
    scaling, size = config.rope.scaling, config.rotary_dim
    if config.position != "rope":
        return {}
    if scaling.kind == "longrope":
        return {
            "rope_factors_long.weight": np.array(scaling.long_factors, np.float32),
            "rope_factors_short.weight": np.array(scaling.short_factors, np.float32),
        }
    if scaling.kind != "llama3":
        return {}
    scaled, _ = inverse_frequencies(config.rope, size, 0, config.max_seq_len)
    plain, _ = inverse_frequencies(Rope(config.rope.theta), size, 0, config.max_seq_len)
    return {"rope_freqs.weight": np.ascontiguousarray(plain / scaled, np.float32)}


def _harmless(name: str, tokens: Collection[str]) -> str:
    """llama.cpp does not load a file whose name has "phi3" in it and that lacks these tokens."""
    if {"</s>", "<s>", "<unk>", "<|endoftext|>"} <= set(tokens):
        return name
    return re.sub(r"phi-?3", "phi 3", name, flags=re.IGNORECASE)


def _own_keys(config: DecoderConfig, family: Gguf) -> dict[str, Any]:
    norm = "layer_norm_rms_epsilon" if config.norm == "rmsnorm" else "layer_norm_epsilon"
    keys: dict[str, Any] = {
        "block_count": config.n_layers,
        "context_length": config.max_seq_len,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.n_heads,
        "attention.head_count_kv": config.n_kv_heads,
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
        f"attention.{norm}": float(config.norm_eps),
        "vocab_size": config.vocab_size,
    }
    if config.activation != family.activations[0]:
        keys["hidden_activation"] = HF_ACTIVATIONS[config.activation]
    if family.says_residual:
        keys["use_parallel_residual"] = config.residual == "parallel"
    optional = {
        "attention.max_alibi_bias": config.alibi_max_bias if config.position == "alibi" else 0.0,
        "attention.clamp_kqv": config.clip_qkv,
        "attn_logit_softcapping": config.attention_softcap,
        "final_logit_softcapping": config.logit_softcap,
    }
    keys |= {key: float(value) for key, value in optional.items() if value}
    return keys | _window(config, family) | _rotation(config)


def _window(config: DecoderConfig, family: Gguf) -> dict[str, Any]:
    """Which layers have it only where llama.cpp's own pattern is another."""
    every = family.window_pattern
    if every is None:
        return {}  # that a window goes unsaid is noticed when the keys are read
    keys: dict[str, Any] = {"attention.sliding_window": config.sliding_window}
    if every == 0 or not config.sliding_window:
        return keys
    local = [i not in config.full_attention_layers for i in range(config.n_layers)]
    if local != [(i + 1) % every != 0 for i in range(config.n_layers)]:
        keys["attention.sliding_window_pattern"] = [int(is_local) for is_local in local]
    return keys


def _rotation(config: DecoderConfig) -> dict[str, Any]:
    if config.position != "rope":
        return {}
    keys: dict[str, Any] = {
        "rope.dimension_count": config.rotary_dim,
        "rope.freq_base": float(config.rope.theta),
    }
    if config.local_rope is not None:
        keys["rope.freq_base_swa"] = float(config.local_rope.theta)
    return keys | _scaling(config)


def _scaling(config: DecoderConfig) -> dict[str, Any]:
    scaling = config.rope.scaling
    if scaling.kind == "linear":
        return {"rope.scaling.type": "linear", "rope.scaling.factor": float(scaling.factor)}
    if scaling.kind == "longrope":
        _, factor = inverse_frequencies(config.rope, config.rotary_dim, 0, config.max_seq_len)
        return {
            "rope.scaling.original_context_length": scaling.original_max_seq_len,
            "rope.scaling.attn_factor": float(factor),
        }
    if scaling.kind != "yarn":
        return {}
    found: dict[str, Any] = {
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": float(scaling.factor),
        "rope.scaling.original_context_length": scaling.original_max_seq_len,
        "rope.scaling.yarn_beta_fast": float(scaling.beta_fast),
        "rope.scaling.yarn_beta_slow": float(scaling.beta_slow),
    }
    if scaling.attention_factor is not None:
        found["rope.scaling.yarn_attn_factor"] = float(scaling.attention_factor)
    return found


def _require_words(config: DecoderConfig, family: Gguf) -> None:
    """What our own reader would take from a file, but llama.cpp not."""
    said = None
    if config.activation not in family.activations:
        said = f"the activation {config.activation}"
    elif family.name in INTERLEAVED_ROPE and config.rotary_dim != config.head_dim:
        said = f"a rotation of {config.rotary_dim} of {config.head_dim} dimensions"
    elif family.fused and config.n_heads * config.head_dim != config.hidden_size:
        said = f"{config.n_heads} heads of {config.head_dim} in {config.hidden_size} dimensions"
    elif family.needs_window and not config.sliding_window:
        said = "layers that all see everything"
    elif config.qk_norm_whole:
        said = "one norm for all queries or keys at once, at which llama.cpp ends"
    elif family.head == "tied" and not config.tied_head:
        said = "a head that is not the embedding"
    if said:
        raise ValueError(f"{_file(family)} has no words for {said}; {_WAY_OUT}")


def _require_read_back(
    config: DecoderConfig, family: Gguf, keys: Mapping[str, Any], tensors: Tensors
) -> None:
    """All else must be read from the file as it is."""
    rounded = {k: float(np.float32(v)) if isinstance(v, float) else v for k, v in keys.items()}
    read = _gguf_metadata.config(Metadata(rounded), tensors)
    found = architectures.decoder_config(read)
    wanted = config
    if family.biases:
        wanted = replace(wanted, qkv_bias=True, o_bias=True, mlp_bias=True)
    if family.head == "own":
        wanted = replace(wanted, tied_head=False)
    require_said(found, wanted, _file(family), _WAY_OUT)


_WAY_OUT = "a Hugging Face directory has"


def _file(family: Gguf) -> str:
    return f"a GGUF file of {family.name}"
