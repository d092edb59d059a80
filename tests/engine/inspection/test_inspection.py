"""What is said of a model without loading it is what loading it shows."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import engine
from engine.cache import KVCache
from engine.checkpoints import open_checkpoint
from engine.config import Rope, RopeScaling
from engine.formats import FORMATS, format_for, weight_format
from engine.inspection import abilities_of, memory_of, parts_of, positions_of, reach_of
from engine.inspection import memory as memory_module
from engine.kernels import activations, attention
from engine.kv_formats import KV_FORMATS
from engine.scratch import Scratch
from engine.training import fast_path
from engine.training.kernels import tile
from tests.engine import llama2c_twin as twin
from tests.engine.decoders import save_llama, small_config
from tests.tiny import tiny_checkpoint

NAMES = ("llama-tied", "neox", "mpt", "gpt2", "gpt-neo", "phi3", "gemma2")


def test_the_numbers_are_those_of_formats_cache_and_scratch() -> None:
    assert {name: weight_format(name).BLOCK_BYTES for name in FORMATS} == memory_module.BLOCK_BYTES
    for kind, name in memory_module.FORMAT_OF.items():
        assert format_for(kind) == name
    assert format_for("Q6_K") == "q8"
    assert set(memory_module.KV_BYTES) == KV_FORMATS
    for name in KV_FORMATS:
        config = small_config()
        assert KVCache(config, name).bytes_per_token == memory_module.kv_bytes(config, name)
    assert attention.SEGMENT == memory_module.SEGMENT
    assert engine.model.Decoder.extend.__globals__["CHUNK"] == memory_module.CHUNK
    assert activations.BLOCK_BYTES == memory_module.ACTIVATION_BYTES
    assert tile.COLUMNS == fast_path.COLUMNS
    buffers = Scratch(small_config(), 1).buffers(memory_module.CHUNK, 0)
    names = ("x", "normed", "blocks", "q", "k", "v", "queries", "attended", "out", "gate", "up")
    n_bytes = sum(getattr(buffers, name).nbytes for name in names)
    assert n_bytes + 4 * 97 == memory_module.scratch_bytes(small_config())


@pytest.mark.parity
@pytest.mark.parametrize("name", NAMES)
def test_parts_and_memory_are_those_of_the_loaded_model(name: str) -> None:
    folder = tiny_checkpoint(name)
    checkpoint, model = open_checkpoint(folder), engine.load(folder)
    parts = parts_of(checkpoint)
    vectors = sum(vector.size for vector in model.weights.vectors.values())
    padding = sum(-size % 32 for size in memory_module.vector_shapes(model.config).values())
    assert sum(part.n_weights for part in parts) == model.n_weights + vectors - padding
    assert sum(part.n_bytes for part in parts) == 4 * sum(part.n_weights for part in parts)
    assert {part.name for part in parts} >= {"embedding", "attention", "feed-forward", "norms"}
    assert ("head" in {part.name for part in parts}) == (not model.config.tied_head)
    assert memory_of(checkpoint, 64).weights == model.n_bytes


def test_quantised_files_are_told_by_their_kinds(tmp_path: Path) -> None:
    sizes = twin.Sizes()
    path = twin.write_model(tmp_path / "m.bin", sizes, twin.random_weights(sizes), 2)
    checkpoint = open_checkpoint(path)
    kinds = {part.name: part.kinds for part in parts_of(checkpoint)}
    assert kinds["attention"] == ("Q8_0",) and kinds["norms"] == ("F32",)
    assert memory_of(checkpoint, 1).weights == engine.load(path).n_bytes


def test_memory_grows_by_whole_segments(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(save_llama(tmp_path / "m"))
    one, more = memory_of(checkpoint, 1), memory_of(checkpoint, 129)
    assert all(more.kv[name] == 2 * one.kv[name] for name in one.kv)
    assert one.total("f16") == one.weights + one.kv["f16"] + one.scratch


def test_learned_positions_end(tmp_path: Path) -> None:
    config = {"model_type": "gpt2", "n_embd": 64, "n_layer": 1, "n_head": 2, "vocab_size": 9}
    (tmp_path / "config.json").write_text(json.dumps(config | {"n_positions": 128}))
    save_file({"wte.weight": np.zeros((9, 64), np.float32)}, tmp_path / "model.safetensors")
    checkpoint = open_checkpoint(tmp_path)
    assert memory_of(checkpoint, 128).n_tokens == 128
    with pytest.raises(ValueError, match="beyond the 128 positions of the weights"):
        memory_of(checkpoint, 129)


def scaled(kind: Any, **fields: Any) -> dict[str, Any]:
    return {"rope": Rope(scaling=RopeScaling(kind, **fields))}


@pytest.mark.parametrize(
    ("flags", "positions", "reach"),
    [
        ({}, "rope, theta 10000", "256 tokens; --max-seq-len goes beyond, where this rotation"),
        (
            {"rope": Rope(theta=500.0, fraction=0.5)},
            "rope, theta 500, 12 of 24 dimensions",
            "256 tokens; --max",
        ),
        (
            scaled("linear", factor=8.0),
            "rope, theta 10000, linear scaling by 8",
            "256 tokens, stretched from 32 by linear scaling; --max-seq-len goes beyond, unproven",
        ),
        (
            scaled("yarn", factor=4.0, original_max_seq_len=64),
            "rope, theta 10000, yarn scaling by 4",
            "256 tokens, stretched from 64 by yarn",
        ),
        (scaled("dynamic", factor=2.0), "dynamic scaling by 2", "stretched as the text grows"),
        ({"position": "alibi"}, "alibi, 4 slopes, bias at most 8", "as ALiBi was made for"),
        ({"position": "learned"}, "learned, 256 rows", "256 tokens, and none beyond"),
        (
            {"sliding_window": 16, "full_attention_layers": (1,)},
            "; a window of 16 tokens in 1 of 2 layers",
            "256 tokens",
        ),
    ],
)
def test_positions_and_their_reach_in_words(
    flags: dict[str, Any], positions: str, reach: str
) -> None:
    config = small_config(**flags)
    assert positions in positions_of(config)
    assert reach in reach_of(config)


PLAIN = {
    "hidden_size": 64, "intermediate_size": 96, "head_dim": 32, "norm_eps": 1e-5,
}  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "kinds", "slow"),
    [
        ({}, {"Q4_1", "Q8_0"}, {}),
        ({}, {"Q6_K"}, {}),
        ({}, {"F32"}, {"products": "f32: 2 to 4 bytes a weight"}),
        (
            {"position": "alibi"},
            {"Q8_0"},
            {"skipped keys and values": "ALiBi gives positions", "training": "positions by alibi"},
        ),
        (scaled("dynamic", factor=2.0), {"Q8_0"}, {"prompt lookup": "with dynamic scaling"}),
        ({"head_bias": True}, {"Q8_0"}, {"sparse head": "the head has a bias"}),
        (
            {"sliding_window": 16},
            {"Q8_0"},
            {"skipped keys and values": "every layer reads 16", "training": "a sliding window"},
        ),
        ({"norm": "layernorm"}, {"Q8_0"}, {"training": "layer norms"}),
        ({"gated": False}, {"Q8_0"}, {"training": "a feed-forward without a gate"}),
        ({"hidden_size": 40}, {"Q8_0"}, {"training": "sizes that are no multiples of 32"}),
    ],
)
def test_what_falls_back_says_why(
    flags: dict[str, Any], kinds: set[str], slow: dict[str, str]
) -> None:
    abilities = abilities_of(small_config(**(PLAIN | flags)), kinds)
    assert {ability.name for ability in abilities if not ability.is_fast} == set(slow)
    for ability in abilities:
        assert slow.get(ability.name, "") in ability.note


def test_the_fast_path_of_training_is_still_the_rule() -> None:
    config = small_config(**PLAIN)
    assert fast_path.is_fast(config)
    for flags in ({"qk_norm": True}, {"clip_qkv": 1.0}, {"residual": "parallel"},
                  {"post_norms": True}, {"attention_softcap": 30.0}, {"activation": "gelu"},
                  {"local_rope": Rope()}, {"norm_bias": True}):  # fmt: skip
        changed = replace(config, **flags)
        assert not fast_path.is_fast(changed) and fast_path.why_slow(changed)


def test_looking_needs_neither_numba_nor_torch() -> None:
    heavy = {"numba", "torch", "llvmlite"}
    code = f"import sys, engine.inspection; print(*({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
