"""load(): from a checkpoint's files to a model, and what it says when they are wrong."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import engine
from engine import weights as weights_module
from tests.engine.decoders import random_values, save_llama, small_config
from tests.parity import reference

IDS = [5, 17, 3, 88, 42, 7]


@pytest.fixture
def llama(tmp_path: Path, home: Path) -> Path:
    return save_llama(tmp_path / "llama")


def packed_files(home: Path) -> list[Path]:
    return sorted((home / "cache" / "packed").glob("*.weights"))


def test_a_directory_without_a_tokenizer_loads_and_gives_logits(llama: Path) -> None:
    model = engine.load(llama)
    expected = reference.logits(small_config(), random_values(small_config()), IDS)
    assert_allclose(model.logits(IDS), expected, atol=2e-5 * np.abs(expected).max())
    assert model.tokenizer is None
    assert (model.weight_format, model.max_seq_len) == ("f32", 256)
    assert model.n_weights == sum(
        v.size for v in random_values(small_config()).values() if v.ndim > 1
    )
    assert len(model.fingerprint) == 64


def test_the_second_load_maps_what_the_first_packed(
    llama: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = engine.load(llama)
    (packed,) = packed_files(home)

    def must_not_pack(*args: object) -> None:
        raise AssertionError("packed again")

    monkeypatch.setattr(weights_module.packed, "write", must_not_pack)
    second = engine.load(llama)
    assert isinstance(second.weights.matrices["embedding"].data.base, np.memmap)
    assert_array_equal(second.logits(IDS), first.logits(IDS))
    assert packed_files(home) == [packed]


def test_a_damaged_packed_file_is_packed_again(llama: Path, home: Path) -> None:
    expected = engine.load(llama).logits(IDS)
    (packed,) = packed_files(home)
    size = packed.stat().st_size
    packed.write_bytes(packed.read_bytes()[: size // 2])
    assert_array_equal(engine.load(llama).logits(IDS), expected)
    assert packed.stat().st_size == size


def test_other_weights_under_the_same_name_are_seen(llama: Path, home: Path) -> None:
    before = engine.load(llama)
    save_llama(llama, random_values(small_config(), seed=7))
    os.utime(llama / "model.safetensors", ns=(1, 1))
    after = engine.load(llama)
    assert after.fingerprint != before.fingerprint
    assert not np.allclose(after.logits(IDS), before.logits(IDS))
    assert len(packed_files(home)) == 2


def test_weights_are_packed_in_memory_when_the_home_cannot_be_written(
    llama: Path, read_only_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = engine.load(llama).logits(IDS)
    monkeypatch.setenv("SPARSECHAT_HOME", str(read_only_folder))
    assert_array_equal(engine.load(llama).logits(IDS), expected)


def test_a_full_disk_while_packing_leaves_no_piece_and_a_working_model(
    llama: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, entries: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weights_module.packed, "write", full)
    model = engine.load(llama)
    assert model.logits(IDS).shape == (6, 97)
    assert packed_files(home) == []


@pytest.mark.parametrize("name", ["f32", "f16", "bf16", "q8", "q4", "q4_0"])
def test_a_weight_format_can_be_chosen(llama: Path, name: str) -> None:
    model = engine.load(llama, name)
    assert model.weights.matrices["layers.0.wq"].format == name
    # four bits cost most where each row is a token
    assert model.weights.matrices["embedding"].format == ("q8" if name.startswith("q4") else name)
    expected = engine.load(llama).logits(IDS)
    error = np.linalg.norm(model.logits(IDS) - expected) / np.linalg.norm(expected)
    bounds = {"f32": 1e-9, "f16": 2e-3, "bf16": 2e-2, "q8": 3e-2, "q4": 0.5, "q4_0": 0.5}
    assert error < bounds[name]


def test_stop_ids_are_the_union_of_what_the_checkpoint_names(llama: Path) -> None:
    save_llama(llama, eos_token_id=4)
    (llama / "generation_config.json").write_text('{"eos_token_id": [5, 6], "top_p": 0.9}')
    model = engine.load(llama)
    assert model.stop_ids == {4, 5, 6}
    assert model.generation_defaults == {"top_p": 0.9}


def test_senseless_generation_defaults_are_left_out(llama: Path) -> None:
    (llama / "generation_config.json").write_text('{"temperature": -3, "top_k": 7}')
    assert engine.load(llama).generation_defaults == {"top_k": 7}


def test_the_context_can_be_made_smaller(llama: Path) -> None:
    model = engine.load(llama, max_seq_len=8)
    with pytest.raises(ValueError, match="takes 1 to 8 token ids, got 9"):
        model.logits([1] * 9)
    with pytest.raises(ValueError, match="max_seq_len must be at least 2, got 1"):
        engine.load(llama, max_seq_len=1)


def test_progress_names_what_is_done(llama: Path) -> None:
    stages: list[str] = []
    engine.load(llama, on_progress=lambda stage, fraction: stages.append(stage))
    assert stages[0] == "reading"
    assert "packing weights" in stages
    assert stages[-1] == "ready"


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["layers.1.w_down", "layers.0.ffn_norm"])
def test_values_that_are_not_finite_are_named(tmp_path: Path, value: float, name: str) -> None:
    values = random_values(small_config())
    values[name].flat[3] = value
    folder = save_llama(tmp_path / "bad", values)
    with pytest.raises(ValueError, match=r"^bad: .*(NaN|infinite) values; the file is damaged"):
        engine.load(folder)


def test_a_wrong_shape_is_named_with_both_shapes(tmp_path: Path) -> None:
    values = random_values(small_config())
    values["layers.0.wk"] = values["layers.0.wk"][:40].copy()
    with pytest.raises(ValueError, match=r"k_proj.weight has shape \(40, 72\), .* \(48, 72\)"):
        engine.load(save_llama(tmp_path / "bad", values))


def test_an_unknown_weight_format_fails_before_any_work(llama: Path, home: Path) -> None:
    with pytest.raises(ValueError, match="unknown weight format 'q5'"):
        engine.load(llama, "q5")
    assert packed_files(home) == []


def test_a_missing_file_and_an_unknown_architecture_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        engine.load(tmp_path / "nowhere.gguf")
    folder = save_llama(tmp_path / "odd")
    config = json.loads((folder / "config.json").read_text()) | {"model_type": "mamba"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="'mamba'"):
        engine.load(folder)


def test_the_public_names_are_those_of_the_folder() -> None:
    for name in engine.__all__:
        assert getattr(engine, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        engine.nothing  # noqa: B018
