"""Files written for llama2.c, run by a NumPy twin of it, and read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.numpy import load_file, save_file

import engine
from engine.adapters import Adapter
from engine.config import Rope
from engine.export import Source, to_gguf, to_huggingface, to_llama2c
from engine.export.llama2c import header_of
from tests.engine import llama2c_twin as twin
from tests.engine.decoders import random_values, save_llama, save_talker, small_config
from tests.engine.llama2c_twin import Sizes
from tests.engine.test_low_rank import random_pairs

TEXT = "Once the world, hello 12 é!\n\nßtraße"


def stories(folder: Path, **sizes: Any) -> Path:
    """A model of llama2.c with its tokenizer."""
    folder.mkdir(exist_ok=True)
    twin.write_tokenizer(folder / "tokenizer.bin", twin.vocabulary())
    numbers = Sizes(**sizes)
    return twin.write_model(folder / "stories.bin", numbers, twin.random_weights(numbers))


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> engine.Model:
    """A Hugging Face directory of such a model, which stores rows in another order."""
    folder = tmp_path_factory.mktemp("llama2c")
    path = stories(folder, own_head=True)
    model = engine.load(path)
    report = to_huggingface(folder / "hf", Source(path), model.logits, "f32")
    assert report.largest < 1e-3
    return engine.load(report.path)


@pytest.mark.parametrize("format_name", ["llama2c", "llama2c-v1"])
def test_the_twin_runs_what_is_written(
    directory: engine.Model, tmp_path: Path, format_name: str
) -> None:
    path = tmp_path / "out" / "m.bin"
    report = to_llama2c(path, Source(directory.path), directory.logits, format_name)
    assert (report.path, report.format, report.same) == (path, format_name, 1.0)
    assert report.kl < 1e-6 and report.n_bytes == path.stat().st_size
    assert sorted(file.name for file in path.parent.iterdir()) == ["m.bin", "tokenizer.bin"]
    vocabulary = twin.Vocabulary(path.with_name("tokenizer.bin"), Sizes().vocab_size)
    ids = vocabulary.encode(TEXT)
    assert directory.tokenizer is not None
    assert ids == directory.tokenizer.encode(TEXT, add_special_tokens=True)
    expected = directory.logits(ids)
    assert_allclose(twin.Reader(path).logits(ids), expected, atol=2e-5 * np.abs(expected).max())


def test_an_adapter_is_merged(directory: engine.Model, tmp_path: Path) -> None:
    adapter = Adapter("polite", 4, 0.5, random_pairs(directory.config, 4))
    directory.set_adapter(adapter)
    try:
        path = to_llama2c(
            tmp_path / "m.bin", Source(directory.path, adapter), directory.logits
        ).path
        expected = directory.logits([1, 270, 5, 300, 17])
    finally:
        directory.set_adapter(None)
    found = twin.Reader(path).logits([1, 270, 5, 300, 17])
    assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())


def test_there_and_back_is_the_same_file(tmp_path: Path) -> None:
    path = stories(tmp_path)
    model = engine.load(path)
    to_huggingface(tmp_path / "hf", Source(path), model.logits, "f32")
    again = tmp_path / "again" / "stories.bin"
    to_llama2c(again, Source(tmp_path / "hf"), model.logits)
    head = sum(4 * n for n in (7, Sizes().vocab_size * 64))
    assert again.read_bytes()[:head] == path.read_bytes()[:head]
    first, second = twin.Reader(path).weights, twin.Reader(again).weights
    for name, values in first.items():
        assert_array_equal(np.asarray(second[name]), np.asarray(values), err_msg=name)
    beside = [file.with_name("tokenizer.bin") for file in (path, again)]
    pieces = [twin.Vocabulary(file, Sizes().vocab_size).pieces for file in beside]
    assert pieces[0] == pieces[1]


def test_a_gguf_file_of_one_has_its_logits(tmp_path: Path) -> None:
    path = stories(tmp_path, n_kv_heads=1)
    model = engine.load(path)
    to_gguf(tmp_path / "m.gguf", Source(path), model.logits, "f32")
    found = engine.load(tmp_path / "m.gguf")
    assert_allclose(found.logits([1, 5, 300]), model.logits([1, 5, 300]), atol=1e-4)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"norm_eps": 1e-6}, "with norm_eps 1e-05; this model has norm_eps 1e-06"),
        ({"rope": Rope(theta=5e5)}, "rope theta 10000; this model has rope theta 500000"),
        ({"rope": Rope(fraction=0.12)}, "rope theta 10000, 0.12 of each head"),
        ({"qkv_bias": True}, "qkv_bias True"),
        ({"activation": "gelu"}, "activation gelu"),
        ({"norm": "layernorm"}, "norm layernorm"),
        ({"position": "alibi"}, "position alibi"),
        ({"head_dim": 40}, "head_dim 40"),
        ({"sliding_window": 64}, "sliding_window 64"),
    ],
)  # fmt: skip
def test_what_llama2_c_does_not_compute_is_named(flags: dict[str, Any], message: str) -> None:
    sizes = {"head_dim": 18, "norm_eps": 1e-5}
    with pytest.raises(ValueError, match=message) as caught:
        header_of(small_config(**(sizes | flags)), 0)
    assert "write a GGUF file or a directory instead" in str(caught.value)


def test_another_kind_of_tokenizer_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    folder = save_talker(tmp_path / "talker")
    config = json.loads((folder / "config.json").read_text())
    shape = {"head_dim": 18, "rms_norm_eps": 1e-5, "max_position_embeddings": 64}
    (folder / "config.json").write_text(json.dumps(config | shape))
    tensors = load_file(folder / "model.safetensors")
    save_file({name: cut(name, value) for name, value in tensors.items()}, folder / "m.safetensors")
    (folder / "m.safetensors").rename(folder / "model.safetensors")
    model = engine.load(folder)
    with pytest.raises(ValueError, match=r"its tokenizer is 'gpt2' of GGUF's kinds; llama2\.c has"):
        to_llama2c(tmp_path / "out" / "m.bin", Source(folder), model.logits)
    assert not (tmp_path / "out").exists()


def cut(name: str, value: np.ndarray) -> np.ndarray:
    """Heads of 24 as heads of 18."""
    if "o_proj" in name:
        return np.ascontiguousarray(value[:, :72])
    if any(part in name for part in ("q_proj", "k_proj", "v_proj")):
        return np.ascontiguousarray(value[: len(value) * 18 // 24])
    return value


def test_a_model_without_a_tokenizer_is_written_alone(tmp_path: Path) -> None:
    keys = {"head_dim": 18, "max_position_embeddings": 64, "num_key_value_heads": 2}
    values = small_config(head_dim=18, max_seq_len=64)
    model = engine.load(save_llama(tmp_path / "bare", random_values(values), **keys))
    report = to_llama2c(tmp_path / "m.bin", Source(model.path), model.logits)
    assert report.kl < 1e-6 and not (tmp_path / "tokenizer.bin").exists()


def test_a_result_with_other_logits_leaves_what_was_there(
    directory: engine.Model, tmp_path: Path
) -> None:
    (tmp_path / "m.bin").write_bytes(b"mine")
    with pytest.raises(ValueError, match="what was written is not the model in memory"):
        to_llama2c(tmp_path / "m.bin", Source(directory.path), lambda ids: -directory.logits(ids))
    assert [file.name for file in tmp_path.iterdir()] == ["m.bin"]
    assert (tmp_path / "m.bin").read_bytes() == b"mine"
