"""OPT's config.json."""

from __future__ import annotations

from typing import Any

import pytest

from engine.architectures import decoder_config

OPT: dict[str, Any] = {
    "model_type": "opt", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "ffn_dim": 96, "vocab_size": 99,
}  # fmt: skip


def test_the_defaults_are_those_of_transformers() -> None:
    found = decoder_config(OPT)
    assert (found.intermediate_size, found.max_seq_len, found.tied_head) == (96, 2048, True)
    assert (found.position, found.norm, found.activation) == ("learned", "layernorm", "relu")
    assert found.qkv_bias and found.o_bias and found.mlp_bias and not found.gated
    bare = decoder_config(OPT | {"enable_bias": False})
    assert not (bare.qkv_bias or bare.o_bias or bare.mlp_bias)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("do_layer_norm_before", False, "do_layer_norm_before must be true, got False"),
        ("_remove_final_layer_norm", True, "_remove_final_layer_norm must be false, got True"),
        ("layer_norm_elementwise_affine", False, "must be true, got False"),
        ("word_embed_proj_dim", 32, "word_embed_proj_dim must be hidden_size 64, got 32"),
    ],
)
def test_what_only_a_few_checkpoints_have_is_refused(key: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decoder_config(OPT | {key: value})
