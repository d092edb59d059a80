"""Tiny checkpoints of the families that llama.cpp has files of, with a byte-level tokenizer."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

from tests.tiny import (
    FAMILY_CONFIGS,
    GEMMA,
    GPT,
    MPT,
    NEOX,
    PHI3,
    TINY_CONFIGS,
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
# what goes to GGUF and comes back as it was
THERE_AND_BACK = (
    "neox", "neox-tanh", "mpt", "mpt-clipped", "gpt2", "phi3", "phi3-window", "phi3-longrope",
    "gemma2-24", "gemma3-24", "gemma3-linear",
)  # fmt: skip
WIDE = tuple(name for name in CONFIGS if name.endswith("-wide"))


@cache
def family_checkpoint(name: str) -> Path:
    """Its folder, built once and removed when Python ends."""
    folder = Path(tempfile.mkdtemp(prefix=f"family-{name}-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    build_checkpoint(CONFIGS[name], folder)
    save_tokenizer(folder)
    return folder
