"""Checkpoints of the other families that lie: one line that names the fault, and nothing hangs."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import engine
from tests.tiny import tiny_checkpoint

pytestmark = pytest.mark.parity

HUGE, NAN = 2**31 - 1, float("nan")
PATIENCE_S = 20  # a fault is found in some milliseconds; what hangs takes forever


@pytest.fixture
def broken(tmp_path: Path) -> Callable[..., str]:
    """Changes keys of config.json and tensors (None takes one away) of a sound checkpoint; what
    loading it says."""

    def broken(
        name: str, keys: dict[str, Any] | None = None, tensors: dict[str, Any] | None = None
    ) -> str:
        folder = shutil.copytree(tiny_checkpoint(name), tmp_path / name)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | (keys or {})))
        if tensors:
            file = folder / "model.safetensors"
            stored = load_file(file)
            for key, change in tensors.items():
                assert key in stored
                values = stored.pop(key)
                if change is not None:
                    stored[key] = np.ascontiguousarray(change(values))
            save_file(stored, file)
        began = time.monotonic()
        with pytest.raises(ValueError) as error:
            engine.load(folder, threads=1)
        assert time.monotonic() - began < PATIENCE_S
        line = str(error.value)
        assert line.startswith((str(folder), folder.name)), line
        assert "\n" not in line and len(line) < len(str(folder)) + 300
        return line

    return broken


@pytest.mark.parametrize(
    ("name", "keys", "message"),
    [
        ("neox", {"num_attention_heads": 7}, "hidden_size 120 is not a multiple of num_attention"),
        ("neox", {"num_attention_heads": 0}, "num_attention_heads must be from 1"),
        ("neox", {"num_hidden_layers": 10**9}, "num_hidden_layers must be from 1 to 10000"),
        ("neox", {"num_hidden_layers": 10_000}, "tensor 'layers.2.wq' is missing"),
        ("neox", {"hidden_size": HUGE}, "is not a multiple of num_attention_heads"),
        ("neox", {"hidden_size": 3 * 10**8}, "asks for"),
        ("neox", {"vocab_size": HUGE}, "asks for"),
        ("neox", {"intermediate_size": 10**30}, "intermediate_size must be from 1"),
        ("neox", {"rope_parameters": {"partial_rotary_factor": 1e-9}}, "rotary dimension 0 must"),
        ("neox", {"rope_parameters": {"partial_rotary_factor": 2}}, "must be at most 1"),
        ("neox", {"rope_parameters": [1]}, "rope_parameters must be an object"),
        ("neox", {"use_parallel_residual": "yes"}, "use_parallel_residual must be true or false"),
        ("neox", {"layer_norm_eps": NAN}, "layer_norm_eps must be greater than 0"),
        ("neox", {"hidden_act": ["gelu"]}, "hidden_act must be one of"),
        ("neox", {"num_key_value_heads": 1, "attention_bias": "no"}, "attention_bias must be"),
        ("mpt", {"attn_config": 5}, "attn_config must be an object"),
        ("mpt", {"attn_config": {"alibi": 1}}, "attn_config.alibi must be true or false"),
        ("mpt", {"attn_config": {"clip_qkv": NAN}}, "attn_config.clip_qkv must be greater"),
        ("mpt", {"attn_config": {"kv_n_heads": 2}}, "n_heads 3 is not a multiple of n_kv_heads 2"),
        ("mpt", {"attn_config": {"kv_n_heads": 1}}, "its config asks for 120 rows"),
        ("mpt", {"attn_config": {"rope": True}}, "attn_config.rope is not supported"),
        ("mpt", {"attn_config": {"alibi": False}}, "tensor 'position_embedding' is missing"),
        ("mpt", {"attn_config": {"qk_ln": True}}, "q_norm' is missing"),
        ("mpt", {"logit_scale": "large"}, "logit_scale must be a number"),
        ("mpt", {"norm_type": 3}, "norm_type must be"),
        ("mpt", {"expansion_ratio": HUGE}, "intermediate_size must be from 1"),
        ("mpt", {"no_bias": False}, "bias' is missing"),
        ("gpt-neo", {"attention_types": [[["global"], 10**9]]}, "attention_types must name"),
        ("gpt-neo", {"attention_types": [[["global"] * 4000, 4000]]}, "attention_types must name"),
        ("gpt-neo", {"attention_types": 3}, "attention_types must be a list"),
        ("gpt-neo", {"attention_types": [[["sideways"], 3]]}, "attention_types must name"),
        ("gpt-neo", {"attention_types": [["global", 3]]}, "attention_types must be a list"),
        ("gpt-neo", {"attention_types": [[[], 10**9]]}, "attention_types must name"),
        ("gpt-neo", {"window_size": 0}, "window_size must be from 1"),
        ("gpt-neo", {"window_size": NAN}, "window_size must be a whole number"),
        ("gpt-neo", {"max_position_embeddings": HUGE}, "asks for"),
        ("gpt2", {"n_positions": HUGE}, "asks for"),
        ("gpt2", {"n_embd": "72"}, "hidden_size must be a whole number"),
        ("gpt2", {"n_inner": 10**9}, "asks for"),
        ("gptj", {"rotary_dim": 7}, "rotary dimension 7 must be even"),
        ("gptj", {"rotary_dim": 10**6}, "rotary_dim must be from 2 to 24"),
        ("gptj", {"rotary_dim": -4}, "rotary_dim must be from 2 to 24"),
        ("phi3", {"num_key_value_heads": 2}, "n_heads 3 is not a multiple of n_kv_heads 2"),
        ("phi3", {"num_key_value_heads": 3}, "its config asks for 360 rows"),
        ("phi3", {"sliding_window": -1}, "sliding_window must be from 0"),
        ("phi3-longrope", {"rope_parameters": {"rope_type": "longrope", "short_factor": [1.0],
         "long_factor": [1.0]}}, "short_factor has 1 items"),
        ("phi3-longrope", {"rope_parameters": {"rope_type": "longrope", "short_factor": [NAN],
         "long_factor": []}}, "short_factor must hold numbers greater than 0"),
        ("gemma2", {"layer_types": ["full_attention"] * 10**5}, "layer_types must list 3 times"),
        ("gemma2", {"layer_types": [["full_attention"]] * 3}, "layer_types must list 3 times"),
        ("gemma2", {"query_pre_attn_scalar": 0}, "query_pre_attn_scalar must be greater than 0"),
        ("gemma2", {"final_logit_softcapping": NAN}, "final_logit_softcapping must be greater"),
        ("gemma2", {"head_dim": 10**6}, "asks for"),
        ("gemma2", {"sliding_window": "wide"}, "sliding_window must be a whole number"),
        ("gemma3", {"sliding_window_pattern": 0, "layer_types": None}, "must be from 1"),
        ("gemma3", {"rope_parameters": {"full_attention": {"rope_theta": -1}}}, "rope_theta must"),
    ],
)  # fmt: skip
def test_a_config_that_lies_is_one_line(
    name: str, keys: dict[str, Any], message: str, broken: Callable[..., str]
) -> None:
    assert message in broken(name, keys)


NEOX, GPT2 = "gpt_neox.layers.1.attention", "transformer.h.1"


@pytest.mark.parametrize(
    ("name", "tensor", "change", "message"),
    [
        ("neox", f"{NEOX}.query_key_value.weight", lambda w: w[:-1], "asks for 360 rows"),
        ("neox", f"{NEOX}.query_key_value.weight", lambda w: w[:, :-1], "asks for"),
        ("neox", f"{NEOX}.query_key_value.weight", np.ravel, "asks for 360 rows"),
        ("neox", f"{NEOX}.query_key_value.weight", lambda w: w * NAN, "holds NaN values"),
        ("neox", f"{NEOX}.query_key_value.weight", lambda w: w.astype(np.int64), "of I64; weights"),
        ("neox", f"{NEOX}.query_key_value.weight", None, "'layers.1.wq' is missing"),
        ("neox", f"{NEOX}.query_key_value.bias", None, "'layers.1.wq.bias' is missing"),
        ("neox", f"{NEOX}.dense.bias", lambda w: w[:1], "asks for"),
        ("mpt", "transformer.blocks.0.attn.Wqkv.weight", lambda w: w[1:], "asks for 216 rows"),
        ("mpt", "transformer.blocks.0.norm_1.weight", None, "attention_norm' is missing"),
        ("gpt2", f"{GPT2}.attn.c_attn.weight", np.transpose, "asks for 216 rows"),
        ("gpt2", f"{GPT2}.mlp.c_fc.weight", np.transpose, "asks for"),
        ("gpt2", f"{GPT2}.mlp.c_fc.weight", np.ravel, "asks for"),
        ("gpt2", f"{GPT2}.attn.c_proj.weight", lambda w: w.astype(np.float64), "of F64; weights"),
        ("gpt-neo", "transformer.wpe.weight", lambda w: w[:-1], "asks for"),
        ("gptj", "lm_head.bias", None, "'head.bias' is missing"),
        ("phi3", "model.layers.0.mlp.gate_up_proj.weight", lambda w: w[2:], "rows"),
        ("gemma2", "model.layers.2.post_feedforward_layernorm.weight", None, "is missing"),
        ("gemma3", "model.layers.2.self_attn.q_norm.weight", lambda w: w[:3], "asks for"),
    ],
)
def test_tensors_that_do_not_fit_are_one_line(
    name: str, tensor: str, change: Any, message: str, broken: Callable[..., str]
) -> None:
    line = broken(name, tensors={tensor: change})
    assert message in line
