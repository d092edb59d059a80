"""Tiny checkpoints of the families that llama.cpp has files of, with a byte-level tokenizer."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from engine.architectures import architecture, decoder_config, layout
from engine.checkpoints._names import pattern_of
from engine.shapes import all_shapes
from tests.tiny import (
    FAMILY_CONFIGS,
    GEMMA,
    GPT,
    MPT,
    NEOX,
    PHI3,
    TINY_CONFIGS,
    VOCAB_SIZE,
    TinyConfig,
    build_checkpoint,
    save_tokenizer,
)

# llama.cpp takes attention's scale from the size of a head
_GEMMA = GEMMA | {"query_pre_attn_scalar": 24}
_WIDE = {"hidden_size": 128, "intermediate_size": 192}  # whole blocks of quantised weights


def _config(name: str, model_type: str, options: dict[str, object]) -> TinyConfig:
    return TinyConfig(name, model_type, options, is_like_llama=model_type == "phi3")


def _gemma3(pattern: int, rope: dict[str, object], local: float = 10_000.0) -> dict[str, object]:
    return _GEMMA | {
        "num_hidden_layers": pattern + 1,
        "sliding_window_pattern": pattern,
        "rope_parameters": {
            "full_attention": rope | {"rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": local},
        },
    }


_OTHERS = (
    TinyConfig("gemma2-24", "gemma2", _GEMMA),
    TinyConfig("gemma2-f16", "gemma2", _GEMMA, dtype="float16"),
    TinyConfig("gemma3-24", "gemma3_text", _gemma3(3, {"rope_type": "default"}, local=20_000.0)),
    TinyConfig("gemma3-linear", "gemma3_text", _gemma3(6, {"rope_type": "linear", "factor": 8.0})),
    _config("neox-tanh", "gpt_neox", NEOX | {"hidden_act": "gelu_fast", "rotary_emb_base": 5e3}),
    _config("neox-wide", "gpt_neox", NEOX | _WIDE | {"num_attention_heads": 4}),
    _config("mpt-wide", "mpt", MPT | {"d_model": 128, "n_heads": 4}),
    _config("gpt2-wide", "gpt2", GPT | {"n_embd": 128, "n_head": 4}),
    TinyConfig("phi3-wide", "phi3", PHI3 | _WIDE | {"num_attention_heads": 4, "head_dim": 32}),
    TinyConfig("gemma2-wide", "gemma2", _GEMMA | _WIDE | {"num_attention_heads": 4,
                                                          "head_dim": 32,
                                                          "query_pre_attn_scalar": 32}),
    TinyConfig("gemma3-wide", "gemma3_text", _GEMMA | _WIDE | {"num_attention_heads": 4,
                                                               "head_dim": 32,
                                                               "query_pre_attn_scalar": 32}),
)  # fmt: skip
CONFIGS = {config.name: config for config in (*TINY_CONFIGS, *FAMILY_CONFIGS, *_OTHERS)}
# what llama.cpp has files of, other families than Llama
FAMILIES = (
    "neox", "neox-tanh", "mpt", "mpt-clipped", "gpt2", "phi3", "phi3-window", "phi3-longrope",
    "gemma2-24", "gemma3-24", "gemma3-linear",
)  # fmt: skip
# what goes to GGUF and comes back as it was
THERE_AND_BACK = (*FAMILIES, "llama-biases", "qwen2-tied")
WIDE = tuple(name for name in CONFIGS if name.endswith("-wide"))


@cache
def family_checkpoint(name: str) -> Path:
    """Its folder, built once and removed when Python ends."""
    folder = Path(tempfile.mkdtemp(prefix=f"family-{name}-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    build_checkpoint(CONFIGS[name], folder)
    save_tokenizer(folder)
    return folder


_MPT = {"model_type": "mpt", "d_model": 96, "n_heads": 4, "n_layers": 2, "max_seq_len": 128}
_GEMMA2 = {"model_type": "gemma2", "intermediate_size": 40, "num_key_value_heads": 1} | _GEMMA
_FULL = {"layer_types": ["full_attention"] * 3}
# what transformers does not write, or not so: keys of config.json
BY_HAND: dict[str, dict[str, Any]] = {
    "mpt-learned": _MPT | {"attn_config": {"alibi": False}},
    "mpt-biases": _MPT | {"no_bias": False},
    "mpt-grouped": _MPT | {"attn_config": {"kv_n_heads": 2, "alibi_bias_max": 16}},
    "mpt-qk": _MPT | {"attn_config": {"qk_ln": True}},
    "mpt-rms": _MPT | {"norm_type": "rmsnorm"},
    "mpt-scaled-logits": _MPT | {"logit_scale": "inv_sqrt_d_model"},
    "neox-tied": NEOX | {"model_type": "gpt_neox", "tie_word_embeddings": True},
    "phi4": PHI3 | {
        "model_type": "phi3", "intermediate_size": 40, "num_hidden_layers": 2,
        "partial_rotary_factor": 0.75, "max_position_embeddings": 128, "tie_word_embeddings": True,
    },
    "gemma3-full": _GEMMA2 | _FULL | {"model_type": "gemma3_text"},
    "gemma2-full": _GEMMA2 | _FULL,
    "gemma2-untied": _GEMMA2 | {"tie_word_embeddings": False},
    "gpt2-relu": GPT | {"model_type": "gpt2", "activation_function": "relu"},
}  # fmt: skip


def made_by_hand(folder: Path, name: str) -> Path:
    """A directory of BY_HAND with random weights and no tokenizer; needs neither torch nor
    transformers."""
    keys = {"vocab_size": VOCAB_SIZE} | BY_HAND[name]
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(keys))
    rng, stored = np.random.default_rng(3), dict[str, list[np.ndarray]]()
    own, table = layout(keys["model_type"]), architecture(keys["model_type"]).TENSORS
    config = decoder_config(keys)
    for ours, shape in all_shapes(config).items():
        values = rng.standard_normal(shape, np.float32) / np.float32(np.sqrt(min(shape)))
        pattern = table[pattern_of(ours)]
        theirs = pattern.replace("{i}", ours.split(".")[1]) if "{i}" in pattern else pattern
        stored.setdefault(theirs, []).append(values)
    n_heads = config.n_heads if own.by_head else 1
    tensors = {key: _by_heads(parts, n_heads) for key, parts in stored.items()}
    if own.transposed:
        for key in (key for key in tensors if ".h." in key):
            tensors[key] = np.ascontiguousarray(tensors[key].T)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _by_heads(parts: list[np.ndarray], n_heads: int) -> np.ndarray:
    """Head 0 of each part, head 1 of each part …"""
    if len(parts) == 1:
        return parts[0]
    return np.concatenate([np.split(part, n_heads)[i] for i in range(n_heads) for part in parts])
