"""`sparsechat export`, in this process, on small models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import engine
from bot.__main__ import main
from engine.adapters import Adapter, Base, read_adapter, write_adapter
from tests.engine import llama2c_twin
from tests.engine.decoders import save_talker, small_config
from tests.engine.test_low_rank import random_pairs

IDS = [5, 17, 3, 88, 42, 7]


@pytest.fixture
def talker(tmp_path: Path, home: Path) -> Path:
    """A model, and an adapter `polite` for it in the home."""
    folder = save_talker(tmp_path / "talker")
    model = engine.load(folder)
    adapter = Adapter("polite", 4, 0.5, random_pairs(small_config(vocab_size=100), 4))
    base = Base("talker", model.fingerprint, "llama")
    write_adapter(home / "data" / "adapters" / "polite", adapter, base)
    return folder


def expected_logits(talker: Path, home: Path) -> np.ndarray:
    return engine.load(talker, adapter=home / "data" / "adapters" / "polite").logits(IDS)


@pytest.mark.parametrize(("to", "format_name"), [("out", "f32"), ("out.gguf", "q8_0")])
def test_an_adapter_is_merged_and_written(
    talker: Path, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], to: str,
    format_name: str,
) -> None:  # fmt: skip
    path = tmp_path / to
    assert main(["export", str(talker), "--adapter", "polite", "--to", str(path)]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith(f"{path}: talker with polite, {format_name}, ")
    assert captured.err.startswith("checked against the model in memory: KL ")
    found = engine.load(path).logits(IDS)
    expected = expected_logits(talker, home)
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()


def test_json_has_everything(
    talker: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export", str(talker), "--to", str(tmp_path / "o.gguf"), "--format", "f32", "--json"]
    assert main(words) == 0
    captured = capsys.readouterr()
    record = json.loads(captured.out)
    check = record.pop("check")
    assert record == {
        "path": str(tmp_path / "o.gguf"),
        "format": "f32",
        "size": (tmp_path / "o.gguf").stat().st_size,
        "model": "talker",
        "adapter": None,
    }
    assert check["tokens"] == 192 and check["kl"] < 1e-6 and check["same_token"] == 1
    assert captured.err == ""


def test_the_adapter_alone_goes_out_in_peft_s_layout(
    talker: Path, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export", str(talker), "--adapter", "polite", "--format", "peft"]
    assert main([*words, "--to", str(tmp_path / "mine")]) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'mine'}: adapter polite, peft, ")
    found = read_adapter(tmp_path / "mine")
    assert found.matrices.keys() == read_adapter(home / "data/adapters/polite").matrices.keys()
    config = json.loads((tmp_path / "mine" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(talker)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--to", "out", "--format", "q4_0"], "--format q4_0 is one of GGUF files: --to NAME.gguf"),
        (["--to", "o.gguf", "--format", "peft", "--adapter", "a"], "--format peft writes a folder"),
        (["--to", "out", "--format", "peft"], "--format peft writes an adapter: --adapter NAME"),
        (["--to", "out", "--format", "q5"], "argument --format: invalid choice: 'q5'"),
        ([], "the following arguments are required: --to"),
    ],
)
def test_flags_that_contradict_each_other_are_usage_errors(
    home: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert main(["export", "tiny", *words]) == 2
    assert said in capsys.readouterr().err


def test_what_is_there_stays_without_force(
    talker: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export", str(talker), "--to"]
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    (photos / "cat.jpg").write_text("")
    assert main([*words, str(photos), "--force"]) == 1
    assert "photos is something else already; name another place" in capsys.readouterr().err
    assert (photos / "cat.jpg").exists()
    assert main([*words, str(out)]) == 0
    assert main([*words, str(out)]) == 1
    assert capsys.readouterr().err.endswith(f"{out} is there already; --force replaces it\n")
    (out / "model.safetensors").write_text("old")
    assert main([*words, str(out), "--force"]) == 0
    assert engine.load(out).n_weights > 0


def test_missing_models_and_adapters_have_their_exit_code(
    talker: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(tmp_path / "no.gguf"), "--to", str(tmp_path / "o.gguf")]) == 3
    words = ["export", str(talker), "--adapter", "plite", "--to", str(tmp_path / "o.gguf")]
    assert main(words) == 3
    assert "did you mean 'polite'?" in capsys.readouterr().err
    assert not (tmp_path / "o.gguf").exists()


def test_a_full_disk_is_noticed_before_anything_is_written(
    talker: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    import shutil
    from types import SimpleNamespace

    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10))
    assert main(["export", str(talker), "--to", str(tmp_path / "a" / "o.gguf")]) == 1
    assert "the disk is full" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


def test_a_model_of_llama2_c_is_read_and_written(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = llama2c_twin.Sizes()
    llama2c_twin.write_model(tmp_path / "a.bin", sizes, llama2c_twin.random_weights(sizes))
    to = tmp_path / "out" / "b.bin"
    assert main(["export", str(tmp_path / "a.bin"), "--to", str(to)]) == 0
    assert capsys.readouterr().out.startswith(f"{to}: a, llama2c, ")
    assert to.read_bytes()[:9000] == (tmp_path / "a.bin").read_bytes()[:9000]
    assert main(["export", str(tmp_path / "a.bin"), "--to", str(to)]) == 1
    assert "is there already; --force replaces it" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "a.bin"), "--to", str(to), "--format", "q8_0"]) == 2
    assert "written by --to NAME.bin" in capsys.readouterr().err
