"""engine/checkpoints/gguf.py: files written by the gguf package, read by us."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf.quants import dequantize, quantize
from numpy.testing import assert_array_equal

from engine.checkpoints import open_checkpoint

WriteGGUF = Callable[..., Path]


def llama(**changes: Any) -> dict[str, Any]:
    """Keys of a Llama of one layer; None takes a key away. `__` in a name stands for a dot."""
    keys: dict[str, Any] = {
        "embedding_length": 64,
        "feed_forward_length": 96,
        "block_count": 1,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
        "context_length": 128,
        "attention.layer_norm_rms_epsilon": 1e-5,
    }
    keys |= {key.replace("__", "."): value for key, value in changes.items()}
    return {f"llama.{key}": value for key, value in keys.items() if value is not None}


def test_every_tensor_of_a_written_file_reads_back(write_gguf: WriteGGUF) -> None:
    checkpoint = open_checkpoint(write_gguf())
    expected = {
        "embedding": (11, 64),
        "final_norm": (64,),
        "layers.0.attention_norm": (64,),
        "layers.0.wq": (64, 64),
        "layers.0.wk": (32, 64),
        "layers.0.wv": (32, 64),
        "layers.0.wo": (64, 64),
        "layers.0.ffn_norm": (64,),
        "layers.0.w_gate": (96, 64),
        "layers.0.w_up": (96, 64),
        "layers.0.w_down": (64, 96),
    }
    assert {name: checkpoint.tensor(name).shape for name in checkpoint.tensor_names()} == expected
    reader = gguf.GGUFReader(checkpoint.path)
    for tensor in reader.tensors:
        ours = next(
            t for t in map(checkpoint.tensor, checkpoint.tensor_names()) if t.name == tensor.name
        )
        assert_array_equal(ours.float32(), tensor.data)
        assert not ours.data.flags.writeable


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_1"])
def test_stored_kinds_are_kept_and_read(write_gguf: WriteGGUF, kind: str) -> None:
    weights = np.random.default_rng(0).standard_normal((6, 64), dtype=np.float32)
    type_ = gguf.GGMLQuantizationType[kind]
    rows = quantize(weights, type_)
    path = write_gguf(llama(), {}, {"blk.0.attn_q.weight": (kind, rows)})
    tensor = open_checkpoint(path).tensor("layers.0.wq")
    assert (tensor.kind, tensor.shape) == (kind, (6, 64))
    assert_array_equal(tensor.float32(), dequantize(rows, type_))


def test_k_quants_are_read_through_the_gguf_package(write_gguf: WriteGGUF) -> None:
    rows = np.random.default_rng(0).integers(0, 56, (3, 2 * 210), dtype=np.uint8)
    path = write_gguf(llama(), {}, {"blk.0.attn_q.weight": ("Q6_K", rows)})
    tensor = open_checkpoint(path).tensor("layers.0.wq")
    assert (tensor.kind, tensor.shape) == ("Q6_K", (3, 512))
    assert_array_equal(tensor.float32(), dequantize(rows, gguf.GGMLQuantizationType.Q6_K))


def test_metadata_of_every_type_reads_back(write_gguf: WriteGGUF, tmp_path: Path) -> None:
    path = tmp_path / "types.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint8("tokenizer.ggml.u8", 255)
    writer.add_int8("tokenizer.ggml.i8", -1)
    writer.add_uint16("tokenizer.ggml.u16", 65535)
    writer.add_int16("tokenizer.ggml.i16", -2)
    writer.add_int32("tokenizer.ggml.i32", -3)
    writer.add_uint64("tokenizer.ggml.u64", 2**64 - 1)
    writer.add_int64("tokenizer.ggml.i64", -(2**63))
    writer.add_float64("tokenizer.ggml.f64", 0.1)
    writer.add_bool("tokenizer.ggml.yes", True)
    writer.add_string("tokenizer.ggml.text", "Grüße 🌍")
    writer.add_array("tokenizer.ggml.bools", [True, False])
    writer.add_array("tokenizer.ggml.ints", [1, -2, 3])
    writer.add_array("tokenizer.ggml.nested", [["a", "b"], ["c"]])
    writer.add_string("tokenizer.ggml.model", "gpt2")
    writer.add_array("tokenizer.ggml.tokens", ["a", "é"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = open_checkpoint(path).ggml_tokenizer
    assert found is not None
    assert dict(found) == {
        "u8": 255,
        "i8": -1,
        "u16": 65535,
        "i16": -2,
        "i32": -3,
        "u64": 2**64 - 1,
        "i64": -(2**63),
        "f64": 0.1,
        "yes": True,
        "text": "Grüße 🌍",
        "bools": [True, False],
        "ints": [1, -2, 3],
        "nested": [["a", "b"], ["c"]],
        "model": "gpt2",
        "tokens": ["a", "é"],
    }


def test_alignment_other_than_32_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "aligned.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_custom_alignment(256)
    weights = {"output_norm.weight": np.arange(5, dtype=np.float32), "output.weight": np.eye(3)}
    for name, array in weights.items():
        writer.add_tensor(name, array.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    checkpoint = open_checkpoint(path)
    assert_array_equal(checkpoint.tensor("final_norm").float32(), weights["output_norm.weight"])
    assert_array_equal(checkpoint.tensor("head").float32(), weights["output.weight"])


def test_version_2_is_read_like_version_3(write_gguf: WriteGGUF) -> None:
    path = write_gguf()
    raw = bytearray(path.read_bytes())
    raw[4] = 2
    path.write_bytes(raw)
    assert open_checkpoint(path).decoder_config().hidden_size == 64


def test_a_missing_tensor_is_named_with_its_file(write_gguf: WriteGGUF) -> None:
    checkpoint = open_checkpoint(write_gguf())
    with pytest.raises(ValueError, match=r"tiny\.gguf: tensor 'layers\.1\.wq' is missing$"):
        checkpoint.tensor("layers.1.wq")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"split.count": 3}, "one of 3 parts of a split model; join them"),
        ({"general.type": "adapter"}, "general.type is 'adapter'; a file of type 'model'"),
    ],
)
def test_files_that_are_not_whole_models_are_refused(
    write_gguf: WriteGGUF, keys: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=rf"tiny\.gguf: {message}"):
        open_checkpoint(write_gguf(llama() | keys))


def test_an_unknown_architecture_opens_and_is_refused_by_name(write_gguf: WriteGGUF) -> None:
    checkpoint = open_checkpoint(write_gguf({"mamba.block_count": 2}, arch="mamba"))
    with pytest.raises(
        ValueError, match=r"tiny\.gguf: model_type 'mamba' is not known; this build has .*llama"
    ):
        checkpoint.decoder_config()


def test_the_fingerprint_is_the_sha256_of_the_file(write_gguf: WriteGGUF) -> None:
    path = write_gguf()
    before = open_checkpoint(path).fingerprint()
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    assert len(before) == 64
    assert open_checkpoint(path).fingerprint() != before


@pytest.mark.model
def test_every_tensor_of_smollm2_equals_the_gguf_packages(smollm2_path: Path) -> None:
    checkpoint = open_checkpoint(smollm2_path)
    theirs = {tensor.name: tensor for tensor in gguf.GGUFReader(smollm2_path).tensors}
    names = checkpoint.tensor_names()
    assert len(names) == len(theirs) == 272
    for name in names:
        ours = checkpoint.tensor(name)
        tensor = theirs[ours.name]
        assert ours.kind == tensor.tensor_type.name
        assert_array_equal(ours.float32(), dequantize(tensor.data, tensor.tensor_type))


@pytest.mark.model
def test_smollm2s_metadata(smollm2_path: Path) -> None:
    checkpoint = open_checkpoint(smollm2_path)
    config = checkpoint.decoder_config()
    assert (config.n_layers, config.n_heads, config.n_kv_heads, config.head_dim) == (30, 9, 3, 64)
    assert (config.vocab_size, config.hidden_size, config.intermediate_size) == (49152, 576, 1536)
    assert (config.rope.theta, config.rope.interleaved, config.tied_head) == (100_000.0, True, True)
    assert checkpoint.generation_config["eos_token_id"] == 2
    assert checkpoint.tokenizer_config["bos_token"] == "<|im_start|>"
    assert checkpoint.tokenizer_config["add_bos_token"] is False
    assert (checkpoint.chat_template or "").startswith("{% for message in messages %}")
    ggml = checkpoint.ggml_tokenizer
    assert ggml is not None
    assert len(ggml["tokens"]) == 49152
    assert len(ggml["merges"]) == 48900
    assert (ggml["model"], ggml["pre"]) == ("gpt2", "smollm")
