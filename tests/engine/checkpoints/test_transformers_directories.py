"""Directories that transformers saves read back as its state_dict and its config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from numpy.testing import assert_array_equal

from engine.architectures import architecture
from engine.checkpoints import open_checkpoint
from engine.checkpoints._names import canonical_names

pytestmark = pytest.mark.parity

SIZES: dict[str, Any] = {
    "vocab_size": 331,
    "hidden_size": 40,
    "intermediate_size": 56,
    "num_hidden_layers": 2,
    "num_attention_heads": 5,
    "num_key_value_heads": 1,
    "max_position_embeddings": 128,
}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "llama-biases": ("Llama", {"attention_bias": True, "mlp_bias": True, "head_dim": 24}),
    "llama-tied": ("Llama", {"tie_word_embeddings": True, "hidden_act": "gelu_new"}),
    "llama-yarn": (
        "Llama",
        {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 5e5}},
    ),
    "mistral": ("Mistral", {"head_dim": 40, "sliding_window": 16}),
    "mistral-full": ("Mistral", {"sliding_window": None}),
    "qwen2": ("Qwen2", {}),
    "qwen2-window": (
        "Qwen2",
        {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1},
    ),
}


def saved(folder: Path, case: str, shard_size: str, dtype: str) -> Any:
    """A tiny random transformers model, saved into `folder`."""
    import torch
    import transformers

    name, changes = CASES[case]
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**SIZES | changes)
    model = getattr(transformers, f"{name}ForCausalLM")(config).to(getattr(torch, dtype))
    model.save_pretrained(folder, max_shard_size=shard_size)
    return model


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("shard_size", ["5GB", "20KB"], ids=["single", "sharded"])
def test_tensors_equal_the_state_dict(tmp_path: Path, shard_size: str, dtype: str) -> None:
    model = saved(tmp_path, "llama-biases", shard_size, dtype)
    checkpoint = open_checkpoint(tmp_path)
    assert (len(checkpoint.files) > 2) == (shard_size == "20KB")
    state = model.state_dict()
    names = canonical_names(architecture("llama").TENSORS, state)
    assert set(names) == set(checkpoint.tensor_names())
    assert len(names) == len(state)
    for ours, theirs in names.items():
        assert_array_equal(checkpoint.tensor(ours).float32(), state[theirs].float().numpy())


@pytest.mark.parametrize("case", CASES)
def test_the_config_says_what_transformers_says(tmp_path: Path, case: str) -> None:
    theirs = saved(tmp_path, case, "5GB", "float32").config
    checkpoint = open_checkpoint(tmp_path)
    ours = checkpoint.decoder_config()
    assert ours.architecture == theirs.model_type
    assert ours.n_layers == theirs.num_hidden_layers
    assert (ours.n_heads, ours.n_kv_heads) == (
        theirs.num_attention_heads,
        theirs.num_key_value_heads,
    )
    head_dim = getattr(theirs, "head_dim", None) or theirs.hidden_size // theirs.num_attention_heads
    assert ours.head_dim == head_dim
    assert ours.norm_eps == theirs.rms_norm_eps
    assert ours.rope.theta == theirs.rope_parameters["rope_theta"]
    assert ours.rope.scaling.kind.replace("none", "default") == theirs.rope_parameters["rope_type"]
    assert ours.tied_head == theirs.tie_word_embeddings
    assert ("head" in checkpoint.tensor_names()) == (not theirs.tie_word_embeddings)
    assert ours.sliding_window == (getattr(theirs, "sliding_window", None) or 0)
    if "layer_types" in theirs.to_dict() and ours.sliding_window:
        full = [i for i, kind in enumerate(theirs.layer_types) if kind == "full_attention"]
        assert list(ours.full_attention_layers) == full


@pytest.mark.parametrize("case", CASES)
def test_biases_are_there_where_the_config_says_so(tmp_path: Path, case: str) -> None:
    saved(tmp_path, case, "5GB", "float32")
    checkpoint = open_checkpoint(tmp_path)
    config, names = checkpoint.decoder_config(), set(checkpoint.tensor_names())
    assert ("layers.1.wk.bias" in names) == config.qkv_bias
    assert ("layers.1.wo.bias" in names) == config.o_bias
    assert ("layers.1.w_up.bias" in names) == config.mlp_bias
