"""GPT-Neo and TinyStories: unscaled attention, a window in some layers, learned positions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.architectures import _gpt
from engine.architectures._keys import MAX_LAYERS, Keys
from engine.config import DecoderConfig

TENSORS = _gpt.tensors(
    {
        "attention_norm": "ln_1",
        "wq": "attn.attention.q_proj",
        "wk": "attn.attention.k_proj",
        "wv": "attn.attention.v_proj",
        "wo": "attn.attention.out_proj",
        "ffn_norm": "ln_2",
        "w_up": "mlp.c_fc",
        "w_down": "mlp.c_proj",
    }
)
_DEFAULTS = {"hidden_act": "gelu_new", "max_position_embeddings": 2048, "tie_word_embeddings": True}


def decoder_config(config: Mapping[str, Any]) -> DecoderConfig:
    """As transformers' GPTNeoConfig."""
    keys = _gpt.named(config, _DEFAULTS)
    kinds = _layer_kinds(keys)
    full = tuple(i for i, kind in enumerate(kinds) if kind == "global")
    return _gpt.decoder_config(
        "gpt_neo",
        keys,
        position="learned",
        qkv_bias=False,
        attention_scale=1.0,
        sliding_window=0 if len(full) == len(kinds) else keys.whole("window_size", 256),
        full_attention_layers=() if len(full) == len(kinds) else full,
    )


def _layer_kinds(keys: Keys) -> list[str]:
    """attention_types, [[["global", "local"], 12]], written out."""
    n_layers = keys.whole("num_hidden_layers", most=MAX_LAYERS)
    kinds: list[str] = []
    entries = keys.values.get("attention_types") or [[["global", "local"], n_layers // 2]]
    for entry in entries if isinstance(entries, list) else [entries]:
        match entry:
            # checked before they are written out: a file may ask for a billion
            case [list(names), int(times)] if 0 <= times * len(names) <= n_layers - len(kinds):
                kinds.extend(str(name) for name in names * times)
            case [list(_), int(_)]:
                break
            case _:
                raise keys.error("attention_types", 'must be a list of [["global", …], times]')
    if len(kinds) != n_layers or not {*kinds} <= {"global", "local"}:
        raise keys.error(
            "attention_types", f'must name "global" or "local" for each of {n_layers} layers'
        )
    return kinds
