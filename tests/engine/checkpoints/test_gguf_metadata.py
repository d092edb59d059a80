"""GGUF's keys in Hugging Face's words."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.checkpoints import open_checkpoint
from engine.config import RopeScaling

WriteGGUF = Callable[..., Path]

KEYS: dict[str, Any] = {
    "embedding_length": 64,
    "feed_forward_length": 96,
    "block_count": 2,
    "attention.head_count": 4,
    "attention.head_count_kv": 2,
    "context_length": 128,
    "attention.layer_norm_rms_epsilon": 1e-5,
    "rope.freq_base": 500_000.0,
}
EMBEDDING = {"token_embd.weight": np.zeros((11, 64), dtype=np.float32)}


def keys_of(arch: str, changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """KEYS below `arch` with `changes`; None takes a key away."""
    merged = KEYS | (changes or {})
    return {f"{arch}.{key}": value for key, value in merged.items() if value is not None}


def test_config_speaks_hugging_faces_keys(write_gguf: WriteGGUF) -> None:
    config = open_checkpoint(write_gguf(keys_of("llama"), EMBEDDING)).config
    assert config == {
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "rms_norm_eps": pytest.approx(1e-5),
        "rope_theta": 500_000.0,
        "vocab_size": 11,
        "tie_word_embeddings": True,
        "attention_bias": False,
        "attention_out_bias": False,
        "mlp_bias": False,
        "rope_interleaved": True,
    }


def test_an_own_head_unties(write_gguf: WriteGGUF) -> None:
    tensors = EMBEDDING | {"output.weight": np.zeros((11, 64), dtype=np.float32)}
    assert (
        open_checkpoint(write_gguf(keys_of("llama"), tensors)).decoder_config().tied_head is False
    )


def test_key_length_is_the_head_dim(write_gguf: WriteGGUF) -> None:
    changes = {"attention.key_length": 40, "attention.value_length": 40}
    path = write_gguf(keys_of("llama", changes | {"rope.dimension_count": 40}), EMBEDDING)
    config = open_checkpoint(path).decoder_config()
    assert (config.head_dim, config.rotary_dim) == (40, 40)


@pytest.mark.parametrize("rotary_dim", range(2, 98, 2))
def test_a_part_of_the_head_is_rotated_exactly(write_gguf: WriteGGUF, rotary_dim: int) -> None:
    changes = {"attention.key_length": 98, "rope.dimension_count": rotary_dim}
    config = open_checkpoint(write_gguf(keys_of("llama", changes), EMBEDDING)).decoder_config()
    assert config.rotary_dim == rotary_dim


def test_qwen2_has_halves_and_biases(write_gguf: WriteGGUF) -> None:
    tensors = EMBEDDING | {"blk.0.attn_q.bias": np.ones(64, dtype=np.float32)}
    checkpoint = open_checkpoint(write_gguf(keys_of("qwen2"), tensors, arch="qwen2"))
    config = checkpoint.decoder_config()
    assert (config.architecture, config.rope.interleaved) == ("qwen2", False)
    assert (config.qkv_bias, config.o_bias) == (True, False)
    assert checkpoint.tensor("layers.0.wq.bias").shape == (64,)


def test_a_llama_with_biases_on_q_only_has_none_on_o(write_gguf: WriteGGUF) -> None:
    tensors = EMBEDDING | {"blk.0.attn_q.bias": np.ones(64, dtype=np.float32)}
    config = open_checkpoint(write_gguf(keys_of("llama"), tensors)).decoder_config()
    assert (config.qkv_bias, config.o_bias, config.mlp_bias) == (True, False, False)


def test_rope_freqs_divide_the_frequencies(write_gguf: WriteGGUF) -> None:
    divisors = np.linspace(1, 8, 8, dtype=np.float32)
    path = write_gguf(keys_of("llama"), EMBEDDING | {"rope_freqs.weight": divisors})
    checkpoint = open_checkpoint(path)
    assert checkpoint.decoder_config().rope.frequency_divisors == tuple(divisors.tolist())
    assert checkpoint.tensor_names() == ("embedding",)


@pytest.mark.parametrize(
    ("changes", "scaling"),
    [
        ({}, RopeScaling()),
        ({"rope.scaling.type": "none", "rope.scaling.factor": 4.0}, RopeScaling()),
        ({"rope.scaling.type": "linear", "rope.scaling.factor": 1.0}, RopeScaling()),
        (
            {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0},
            RopeScaling("linear", factor=4.0),
        ),
        ({"rope.scaling.factor": 2.0}, RopeScaling("linear", factor=2.0)),
        ({"rope.scale_linear": 2.0}, RopeScaling("linear", factor=2.0)),
        (
            {
                "rope.scaling.type": "yarn",
                "rope.scaling.factor": 4.0,
                "rope.scaling.original_context_length": 32,
                "rope.scaling.yarn_beta_fast": 16.0,
                "rope.scaling.yarn_beta_slow": 2.0,
            },
            RopeScaling("yarn", 4.0, original_max_seq_len=32, beta_fast=16.0, beta_slow=2.0),
        ),
        (
            {
                "rope.scaling.type": "yarn",
                "rope.scaling.factor": 4.0,
                "rope.scaling.original_context_length": 32,
                "rope.scaling.yarn_attn_factor": 0.5,
            },
            RopeScaling("yarn", 4.0, original_max_seq_len=32, attention_factor=0.5),
        ),
    ],
)
def test_rope_scaling_is_translated(
    write_gguf: WriteGGUF, changes: dict[str, Any], scaling: RopeScaling
) -> None:
    path = write_gguf(keys_of("llama", changes), EMBEDDING)
    assert open_checkpoint(path).decoder_config().rope.scaling == scaling


def test_attn_factor_multiplies_yarns_own(write_gguf: WriteGGUF) -> None:
    changes = {
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": 4.0,
        "rope.scaling.attn_factor": 0.5,
    }
    path = write_gguf(keys_of("llama", changes), EMBEDDING)
    scaling = open_checkpoint(path).decoder_config().rope.scaling
    assert scaling.attention_factor == pytest.approx(0.5 * (0.1 * math.log(4) + 1))
    assert scaling.original_max_seq_len == 128


def test_per_layer_lists_of_one_value_are_that_value(write_gguf: WriteGGUF) -> None:
    changes = {"attention.head_count": [4, 4], "feed_forward_length": [96, 96]}
    config = open_checkpoint(write_gguf(keys_of("llama", changes), EMBEDDING)).decoder_config()
    assert (config.n_heads, config.intermediate_size) == (4, 96)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"feed_forward_length": [96, 48]},
            r"intermediate_size must be a whole number, got \[96, 48\]",
        ),
        (
            {"attention.head_count": "four"},
            "num_attention_heads must be a whole number, got 'four'",
        ),
        ({"embedding_length": None}, "hidden_size is missing"),
        ({"block_count": 2**31}, "num_hidden_layers must be from 1 to 10000, got 2147483648"),
        ({"attention.head_count_kv": 3}, "n_heads 4 is not a multiple of n_kv_heads 3"),
        ({"expert_count": 8}, "llama.expert_count is 8, which this build does not support"),
        (
            {"attention.key_length": 16, "attention.value_length": 8},
            "llama.attention.value_length is 8, which",
        ),
        (
            {"rope.scaling.type": "longrope", "rope.scaling.factor": 4.0},
            "rope_scaling.short_factor has 0 items, half the rotary dimension is 8",
        ),
    ],
)
def test_what_the_decoder_does_not_have_is_refused_by_name(
    write_gguf: WriteGGUF, changes: dict[str, Any], message: str
) -> None:
    checkpoint = open_checkpoint(write_gguf(keys_of("llama", changes), EMBEDDING))
    with pytest.raises(ValueError, match=rf"tiny\.gguf: {message}"):
        checkpoint.decoder_config()


TOKENIZER: dict[str, Any] = {
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.tokens": ["<unk>", "<s>", "</s>", "<|eot|>", "a"],
    "tokenizer.ggml.scores": [0.0, 0.0, 0.0, 0.0, -1.0],
    "tokenizer.ggml.token_type": [2, 3, 3, 3, 1],
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
    "tokenizer.ggml.unknown_token_id": 0,
    "tokenizer.ggml.add_bos_token": True,
    "tokenizer.ggml.add_space_prefix": False,
}


def test_special_tokens_are_strings_and_flags(write_gguf: WriteGGUF) -> None:
    checkpoint = open_checkpoint(write_gguf(keys_of("llama") | TOKENIZER, EMBEDDING))
    assert checkpoint.tokenizer_config == {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "add_bos_token": True,
        "add_prefix_space": False,
    }
    assert checkpoint.generation_config == {"bos_token_id": 1, "eos_token_id": 2}
    assert checkpoint.chat_template is None
    assert checkpoint.tokenizer_json is None


def test_end_of_turn_tokens_join_the_eos_ids(write_gguf: WriteGGUF) -> None:
    keys = keys_of("llama") | TOKENIZER | {"tokenizer.ggml.eot_token_id": 3}
    checkpoint = open_checkpoint(write_gguf(keys, EMBEDDING))
    assert checkpoint.generation_config["eos_token_id"] == [2, 3]


def test_sampling_defaults_become_generation_config(write_gguf: WriteGGUF) -> None:
    keys = keys_of("llama") | {"general.sampling.temp": 0.5, "general.sampling.top_k": 20}
    checkpoint = open_checkpoint(write_gguf(keys, EMBEDDING))
    assert checkpoint.generation_config == {"temperature": 0.5, "top_k": 20}


def test_the_default_chat_template_is_chosen_among_named_ones(write_gguf: WriteGGUF) -> None:
    keys = keys_of("llama") | {
        "tokenizer.chat_template": "{{ messages }}",
        "tokenizer.chat_template.tool_use": "{{ tools }}",
    }
    checkpoint = open_checkpoint(write_gguf(keys, EMBEDDING))
    assert checkpoint.chat_template == "{{ messages }}"
    assert checkpoint.tokenizer_config["chat_template"] == [
        {"name": "default", "template": "{{ messages }}"},
        {"name": "tool_use", "template": "{{ tools }}"},
    ]


def test_a_file_without_tokenizer_has_none(write_gguf: WriteGGUF) -> None:
    checkpoint = open_checkpoint(write_gguf(keys_of("llama"), EMBEDDING))
    assert checkpoint.ggml_tokenizer is None
    assert checkpoint.tokenizer_config == {}
    assert checkpoint.decoder_config().vocab_size == 11


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"tokenizer.ggml.bos_token_id": 5},
            "tokenizer.ggml.bos_token_id is 5, there are 5 tokens",
        ),
        ({"tokenizer.ggml.tokens": [1, 2]}, "tokenizer.ggml.tokens must be a list of str"),
        ({"tokenizer.ggml.merges": "a b"}, "tokenizer.ggml.merges must be a list of str"),
        (
            {"tokenizer.ggml.token_type": [1]},
            "tokenizer.ggml.token_type has 1 items, there are 5 tokens",
        ),
    ],
)
def test_a_broken_tokenizer_is_refused_when_it_is_asked_for(
    write_gguf: WriteGGUF, changes: dict[str, Any], message: str
) -> None:
    checkpoint = open_checkpoint(write_gguf(keys_of("llama") | TOKENIZER | changes, EMBEDDING))
    with pytest.raises(ValueError, match=rf"tiny\.gguf: {message}"):
        _ = checkpoint.tokenizer_config
