"""OPT: learned positions that begin in the third row, ReLU, an own final norm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.architectures import _gpt
from engine.architectures._layout import Layout
from engine.architectures._names import layers, tensors
from engine.config import DecoderConfig

LAYOUT = Layout(first_position=2)
TENSORS = tensors(
    {
        "embedding": "model.decoder.embed_tokens",
        "position_embedding": "model.decoder.embed_positions",
        "final_norm": "model.decoder.final_layer_norm",
        "head": "lm_head",
        **layers(
            "model.decoder.layers.{i}",
            {
                "attention_norm": "self_attn_layer_norm",
                "wq": "self_attn.q_proj",
                "wk": "self_attn.k_proj",
                "wv": "self_attn.v_proj",
                "wo": "self_attn.out_proj",
                "ffn_norm": "final_layer_norm",
                "w_up": "fc1",
                "w_down": "fc2",
            },
        ),
    }
)
_DEFAULTS = {"hidden_act": "relu", "max_position_embeddings": 2048, "tie_word_embeddings": True}
_SIZES = {"ffn_dim": "intermediate_size"}
# of the 350M model alone, whose norms stand behind, and of early conversions
_ONLY = {
    "do_layer_norm_before": True,
    "layer_norm_elementwise_affine": True,
    "_remove_final_layer_norm": False,
}


def decoder_config(config: Mapping[str, Any]) -> DecoderConfig:
    """As transformers' OPTConfig."""
    known = {_SIZES.get(key, key): value for key, value in config.items()}
    keys = _gpt.named(known, _DEFAULTS)
    for key, wanted in _ONLY.items():
        if keys.flag(key, wanted) != wanted:
            raise keys.error(key, f"must be {str(wanted).lower()}")
    width = keys.whole("hidden_size")
    if keys.has("word_embed_proj_dim") and keys.whole("word_embed_proj_dim") != width:
        raise keys.error("word_embed_proj_dim", f"must be hidden_size {width}")
    biases = dict.fromkeys(("qkv_bias", "o_bias", "mlp_bias"), keys.flag("enable_bias", True))
    return _gpt.decoder_config("opt", keys, position="learned", **biases)
