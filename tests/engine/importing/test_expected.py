"""Expected names and shapes are those that transformers saves, for every family."""

from __future__ import annotations

import json

import pytest

from engine.checkpoints._safetensors import read_safetensors
from engine.importing.expected import expected
from tests.tiny import FAMILY_NAMES, TINY_NAMES, tiny_checkpoint

NAMES = (*FAMILY_NAMES, *(name for name in TINY_NAMES if name.endswith(("-tied", "-biases"))))


@pytest.mark.parity
@pytest.mark.parametrize("name", (*NAMES, "qwen2", "mistral-window"))
def test_every_family_is_expected_as_transformers_saves_it(name: str) -> None:
    folder = tiny_checkpoint(name)
    saved = {
        key: tensor.shape for key, tensor in read_safetensors(folder / "model.safetensors").items()
    }
    config = json.loads((folder / "config.json").read_text())
    want = expected(config, saved)
    assert want.shapes == saved
    assert all(want.is_known(key) and not want.is_buffer(key) for key in saved)


@pytest.mark.parametrize(
    ("model_type", "key"),
    [
        ("gpt2", "h.0.attn.bias"),
        ("gpt2", "transformer.h.0.attn.masked_bias"),
        ("gpt_neo", "transformer.h.1.attn.attention.bias"),
        ("gptj", "transformer.h.1.attn.embed_positions"),
        ("gpt_neox", "gpt_neox.layers.3.attention.rotary_emb.inv_freq"),
        ("gpt_neox", "gpt_neox.layers.3.attention.masked_bias"),
        ("llama", "model.layers.11.self_attn.rotary_emb.inv_freq"),
    ],
)
def test_buffers_are_no_weights(model_type: str, key: str) -> None:
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 9}
    sizes |= {"intermediate_size": 96, "rotary_dim": 8}
    want = expected({"model_type": model_type, **sizes})
    assert want.is_buffer(key)
    assert not any(want.is_buffer(name) for name in want.shapes)
