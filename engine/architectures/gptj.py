"""GPT-J: attention and feed-forward side by side behind one norm, neighbours rotated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from engine.architectures import _gpt
from engine.architectures._keys import head_dim
from engine.architectures._layout import Layout
from engine.config import DecoderConfig

LAYOUT = Layout(interleaved=True)
TENSORS = _gpt.tensors(
    {
        "attention_norm": "ln_1",
        "wq": "attn.q_proj",
        "wk": "attn.k_proj",
        "wv": "attn.v_proj",
        "wo": "attn.out_proj",
        "w_up": "mlp.fc_in",
        "w_down": "mlp.fc_out",
    }
)
_DEFAULTS = {"hidden_act": "gelu_new", "max_position_embeddings": 2048, "rotary_dim": 64}


def decoder_config(config: Mapping[str, Any]) -> DecoderConfig:
    """As transformers' GPTJConfig."""
    keys = _gpt.named(config, _DEFAULTS)
    decoder = _gpt.decoder_config(
        "gptj",
        keys,
        qkv_bias=False,
        o_bias=False,
        residual="parallel",
        shared_norm=True,
        head_bias=not keys.flag("tie_word_embeddings"),
    )
    size = head_dim(keys, decoder.hidden_size, decoder.n_heads)
    fraction = keys.whole("rotary_dim", least=2, most=size) / size
    return replace(decoder, rope=replace(decoder.rope, fraction=fraction, interleaved=True))
