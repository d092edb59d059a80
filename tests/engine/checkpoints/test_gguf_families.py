"""GGUF files of families with fused tensors and keys of their own: what they are read as, and what
is said of damaged and mislabelled ones."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from engine.checkpoints import Checkpoint, open_checkpoint
from engine.checkpoints._gguf_file import read_gguf
from engine.config import DecoderConfig
from engine.export.gguf_file import TYPE_IDS, Entry, encoded, write
from engine.shapes import all_shapes
from tests.engine.export.families import family_checkpoint
from tests.engine.gguf_families import converted

pytestmark = pytest.mark.parity
Altered = Callable[..., Checkpoint]


@pytest.fixture
def altered(tmp_path: Path) -> Altered:
    """(family, keys, tensors, name): the converter's file with other values; None takes one away.

    keys  below the architecture's name, or whole where they begin with a dot
    """

    def alter(
        name: str,
        keys: Mapping[str, Any] | None = None,
        tensors: Mapping[str, np.ndarray | None] | None = None,
        architecture: str | None = None,
    ) -> Checkpoint:
        file = read_gguf(converted(tmp_path / "whole.gguf", family_checkpoint(name)))
        own = file.metadata["general.architecture"]
        values = {key: file.metadata[key] for key in file.metadata}
        values |= {f"{own}.{key}": value for key, value in (keys or {}).items()}
        if architecture is not None:
            values = {key.replace(f"{own}.", f"{architecture}."): v for key, v in values.items()}
            values["general.architecture"] = architecture
        arrays = {name: tensor.float32() for name, tensor in file.tensors.items()}
        arrays |= {k: None if v is None else np.float32(v) for k, v in (tensors or {}).items()}
        entries = [
            Entry(name, a.shape, TYPE_IDS["F32"], a.nbytes, lambda a=a: _bytes(a))
            for name, a in arrays.items()
            if a is not None
        ]
        path = tmp_path / "altered.gguf"
        with path.open("wb") as out:
            kept = {key: encoded(key, v) for key, v in values.items() if v is not None}
            write(out, kept, entries, lambda fraction: None)
        return open_checkpoint(path)

    return alter


def _bytes(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def read_all(checkpoint: Checkpoint) -> None:
    """All that the decoder asks for."""
    for name, shape in all_shapes(checkpoint.decoder_config()).items():
        found = checkpoint.tensor(name)
        assert found.shape == shape, name


FILES: dict[str, tuple[str, dict[str, Any], dict[str, np.ndarray | None], str]] = {
    "no qkv": ("neox", {}, {"blk.1.attn_qkv.weight": None}, "tensor 'layers.1.wq' is missing"),
    "no qkv bias": ("neox", {}, {"blk.1.attn_qkv.bias": None}, "'layers.1.wq.bias' is missing"),
    "rows of qkv": (
        "neox", {}, {"blk.1.attn_qkv.weight": np.ones((359, 120))},
        r"blk.1.attn_qkv.weight has shape \(359, 120\), its config asks for 360 rows",
    ),
    "ungated": (
        "phi3", {}, {"blk.0.ffn_up.weight": np.ones((136, 120))},
        r"blk.0.ffn_up.weight has shape \(136, 120\), its config asks for 272 rows",
    ),
    "no norm": ("gemma2-24", {}, {"blk.2.post_ffw_norm.weight": None}, "ffn_post_norm' is missing"),
    "no head": ("gpt2", {}, {"position_embd.weight": None}, "'position_embedding' is missing"),
    "one list of factors": (
        "phi3-longrope", {}, {"rope_factors_short.weight": None},
        "rope_factors_long.weight is there, rope_factors_short.weight is not",
    ),
    "short factors": (
        "phi3-longrope", {}, {"rope_factors_long.weight": np.ones(19)},
        "rope_scaling.long_factor has 19 items, half the rotary dimension is 20",
    ),
    "factors of zero": (
        "phi3-longrope", {}, {"rope_factors_long.weight": np.zeros(20)},
        "rope_scaling.long_factor must hold numbers greater than 0, not 0.0",
    ),
    "another norm": (
        "neox", {"attention.layer_norm_epsilon": None, "attention.layer_norm_rms_epsilon": 1e-5},
        {}, "gptneox.attention.layer_norm_epsilon is missing, which its layernorm needs",
    ),
    "residual": (
        "neox", {"use_parallel_residual": "yes"}, {},
        "use_parallel_residual must be true or false, got 'yes'",
    ),
    "a residual it has not": (
        "mpt", {"use_parallel_residual": True}, {},
        "mpt.use_parallel_residual is True, which this build does not support",
    ),
    "activation": ("gpt2", {"hidden_activation": "mish"}, {}, "hidden_act must be one of silu"),
    "pattern": (
        "gemma2-24", {"attention.sliding_window_pattern": [1, 0]}, {},
        "layer_types must list 3 times one of full_attention, sliding_attention",
    ),
    "cap": (
        "gemma2-24", {"attn_logit_softcapping": "fifty"}, {},
        "attn_logit_softcapping must be a number, got 'fifty'",
    ),
    "a cap it has not": (
        "phi3", {"final_logit_softcapping": 30.0}, {},
        "phi3.final_logit_softcapping is 30.0, which this build does not support",
    ),
    "scale": (
        "gpt2", {"attention.scale": 0.5}, {},
        "gpt2.attention.scale is 0.5, which this build does not support",
    ),
    "bias": ("mpt", {"attention.max_alibi_bias": "8"}, {}, "alibi_bias_max must be a number"),
    "positions it has not": (
        "gpt2", {"attention.max_alibi_bias": 8.0}, {},
        "gpt2.attention.max_alibi_bias is 8.0, which this build does not support",
    ),
    "no positions": (
        "mpt", {"attention.max_alibi_bias": None}, {},
        "learned_pos_emb must be true where attn_config.alibi is false",
    ),
    "clip": ("mpt", {"attention.clamp_kqv": [1.0]}, {}, "clip_qkv must be a number"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "keys", "tensors", "said"), FILES.values(), ids=FILES)
def test_a_damaged_file_has_one_clear_line(
    altered: Altered,
    name: str,
    keys: dict[str, Any],
    tensors: dict[str, np.ndarray | None],
    said: str,
) -> None:
    with pytest.raises(ValueError, match=said) as error:
        read_all(altered(name, keys, tensors))
    assert "altered.gguf: " in str(error.value) and "\n" not in str(error.value)


def test_a_mislabelled_file_is_noticed(altered: Altered) -> None:
    with pytest.raises(ValueError, match=r"gpt2.use_parallel_residual is True, which this build"):
        read_all(altered("neox", architecture="gpt2"))
    with pytest.raises(ValueError, match=r"tensor 'position_embedding' is missing"):
        read_all(altered("neox", {"use_parallel_residual": False}, architecture="gpt2"))
    with pytest.raises(ValueError, match=r"llama.cpp has no GGUF files of gptj; use the Hugging"):
        read_all(altered("neox", architecture="gptj"))
    with pytest.raises(ValueError, match=r"'layers.0.w_gate' is missing"):
        read_all(altered("gemma2-24", {"head_dim": 24}, {"blk.0.ffn_gate.weight": None}))


def config_of(altered: Altered, name: str, **keys: Any) -> DecoderConfig:
    renamed = {key.replace("__", "."): value for key, value in keys.items()}
    return altered(name, renamed).decoder_config()


def test_what_the_file_leaves_out_is_what_llama_cpp_takes(altered: Altered) -> None:
    rotated = config_of(altered, "neox", rope__dimension_count=None)
    assert rotated.rotary_dim == rotated.head_dim == 40
    capped = config_of(
        altered, "gemma2-24", attn_logit_softcapping=None, final_logit_softcapping=None,
        attention__sliding_window=None, attention__head_count_kv=None,
    )  # fmt: skip
    assert (capped.attention_softcap, capped.logit_softcap) == (50.0, 30.0)
    assert (capped.sliding_window, capped.n_kv_heads) == (4096, 3)
    whole = config_of(altered, "gemma3-24", attention__sliding_window=None)
    assert (whole.sliding_window, whole.full_attention_layers) == (0, ())


def test_a_pattern_of_windows_is_a_number_or_a_list(altered: Altered) -> None:
    by_number = config_of(altered, "gemma3-24", attention__sliding_window_pattern=3)
    assert by_number.full_attention_layers == (2,)
    by_list = config_of(altered, "gemma3-24", attention__sliding_window_pattern=[0, 1, 1, 0])
    assert by_list.full_attention_layers == (0, 3)


def test_gemma_s_largest_has_a_scale_of_its_own(altered: Altered) -> None:
    usual = config_of(altered, "gemma2-24")
    assert usual.attention_scale == pytest.approx(24**-0.5)
    wide = {"attention__key_length": 32, "attention__value_length": 32}
    assert config_of(altered, "gemma2-24", **wide).attention_scale == pytest.approx(32**-0.5)
    largest = config_of(altered, "gemma2-24", block_count=46, **wide)
    assert largest.attention_scale == pytest.approx((72 // 3) ** -0.5)


def test_fused_weights_may_have_separate_biases(altered: Altered) -> None:
    rng = np.random.default_rng(0)
    whole = rng.standard_normal(360, np.float32)
    parts = dict(zip("qkv", np.split(whole, 3), strict=True))
    tensors: dict[str, np.ndarray | None] = {"blk.0.attn_qkv.bias": None}
    tensors |= {f"blk.0.attn_{part}.bias": rows for part, rows in parts.items()}
    checkpoint = altered("neox", tensors=tensors)
    read_all(checkpoint)
    for part, rows in parts.items():
        assert_array_equal(checkpoint.tensor(f"layers.0.w{part}.bias").float32(), rows)


@pytest.mark.parametrize("name", ["mpt-clipped", "phi3-longrope", "gemma3-linear"])
def test_a_bit_flipped_file_is_read_or_has_one_line(tmp_path: Path, name: str) -> None:
    path = converted(tmp_path / "m.gguf", family_checkpoint(name))
    whole, rng = path.read_bytes(), random.Random(0)
    tables = whole.find(b"blk.1.") + 3000  # keys, names and shapes stand in front of the weights
    faults = []
    for _ in range(100):
        damaged = bytearray(whole)
        damaged[rng.randrange(24, tables)] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            checkpoint = open_checkpoint(path)
            for wanted in all_shapes(checkpoint.decoder_config()):
                checkpoint.tensor(wanted)
        except ValueError as error:
            faults.append(str(error))
    assert faults and all(fault.startswith(f"{path}: ") for fault in faults)
    assert not any("\n" in fault for fault in faults)
