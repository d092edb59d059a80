from __future__ import annotations

from typing import Any

import pytest

from engine.architectures.llama import TENSORS, decoder_config
from engine.config import DecoderConfig, Rope


def test_the_least_config_takes_transformers_defaults(config: dict[str, Any]) -> None:
    assert decoder_config(config) == DecoderConfig(
        architecture="llama",
        vocab_size=331,
        hidden_size=60,
        intermediate_size=96,
        n_layers=4,
        n_heads=6,
        n_kv_heads=6,
        head_dim=10,
        max_seq_len=2048,
        norm_eps=1e-6,
        rope=Rope(),
    )


def test_every_key_is_read(config: dict[str, Any]) -> None:
    found = decoder_config(
        config
        | {
            "num_key_value_heads": 2,
            "head_dim": 40,
            "max_position_embeddings": 512,
            "rms_norm_eps": 1e-5,
            "rope_theta": 5e5,
            "hidden_act": "gelu",
            "attention_bias": True,
            "mlp_bias": True,
            "tie_word_embeddings": True,
        }
    )
    assert (found.n_kv_heads, found.head_dim, found.max_seq_len) == (2, 40, 512)
    assert (found.norm_eps, found.rope.theta, found.activation) == (1e-5, 5e5, "gelu")
    assert found.qkv_bias and found.o_bias and found.mlp_bias and found.tied_head


def test_a_sliding_window_is_ignored_as_in_transformers(config: dict[str, Any]) -> None:
    assert decoder_config(config | {"sliding_window": 64}).sliding_window == 0


def test_tensor_names_are_hugging_faces() -> None:
    assert TENSORS["layers.{i}.wq"] == "model.layers.{i}.self_attn.q_proj.weight"
    assert TENSORS["layers.{i}.w_down.bias"] == "model.layers.{i}.mlp.down_proj.bias"
    assert TENSORS["head"] == "lm_head.weight"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"vocab_size": "many"}, "vocab_size must be a whole number, got 'many'"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers must be from 1 to 10000"),
        ({"num_key_value_heads": 4}, "n_heads 6 is not a multiple of n_kv_heads 4"),
        ({"head_dim": 5}, "rotary dimension 5 must be even"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings must be true or false, got 'yes'"),
        ({"hidden_act": "xielu"}, "hidden_act must be one of .* got 'xielu'"),
    ],
)
def test_faults_are_one_line(config: dict[str, Any], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}") as error:
        decoder_config(config | changes)
    assert "\n" not in str(error.value)
