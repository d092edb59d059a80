"""GPT-2: learned positions, matrices stored by inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.architectures import _gpt
from engine.architectures._gguf import BIASES, QKV, Gguf
from engine.architectures._layout import Layout
from engine.architectures._names import qkv
from engine.config import DecoderConfig

LAYOUT = Layout(transposed=True)
TENSORS = _gpt.tensors(
    {
        "attention_norm": "ln_1",
        **qkv("attn.c_attn"),
        "wo": "attn.c_proj",
        "ffn_norm": "ln_2",
        "w_up": "mlp.c_fc",
        "w_down": "mlp.c_proj",
    }
)
_DEFAULTS = {"hidden_act": "gelu_new", "max_position_embeddings": 1024, "tie_word_embeddings": True}


def _config_json(decoder: DecoderConfig) -> dict[str, Any]:
    keys = _gpt.config_json(decoder)
    del keys["rope_theta"]
    names = {theirs: keys.pop(ours) for ours, (theirs, *_) in _gpt.NAMES.items()}
    return keys | names


GGUF = Gguf(
    "gpt2",
    "GPT2LMHeadModel",
    _config_json,
    fused=QKV,
    activations=("gelu_tanh", "gelu"),
    biases=BIASES,
)


def decoder_config(config: Mapping[str, Any]) -> DecoderConfig:
    """As transformers' GPT2Config. Attention scaled by the number of a layer is refused."""
    keys = _gpt.named(config, _DEFAULTS)
    if keys.flag("scale_attn_by_inverse_layer_idx"):
        raise keys.error("scale_attn_by_inverse_layer_idx", "is not supported")
    scale = None if keys.flag("scale_attn_weights", True) else 1.0
    return _gpt.decoder_config("gpt2", keys, position="learned", attention_scale=scale)
