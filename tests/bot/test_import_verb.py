"""`sparsechat import`, in this process, on a tiny model."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from bot.__main__ import main
from bot.commands_model import model_names
from data import models, paths
from tests.data.hub_layout import cache_repository
from tests.engine.decoders import save_talker


@pytest.fixture
def old(tmp_path: Path, home: Path) -> Path:
    """A directory with a pickle."""
    folder = save_talker(tmp_path / "old")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder


def test_a_pickled_model_gets_a_name(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(old), "--to", str(old.parent / "x.gguf")]) == 1
    assert f"`sparsechat import {old}` makes safetensors of it once" in capsys.readouterr().err
    assert main(["import", str(old), "--to", "mine"]) == 0
    captured = capsys.readouterr()
    folder = paths.models_dir() / "mine"
    assert captured.out.startswith(f"{folder}: 21 tensors of pytorch_model.bin, ")
    assert "21 tensors are the same bit for bit; logits of 192 tokens differ by 0" in captured.err
    assert "`sparsechat --model mine` opens it" in captured.err
    found = models.resolve("mine")
    assert (found.path, found.source) == (folder, "imported")
    assert main(["export", "mine", "--to", str(old.parent / "x.gguf"), "--format", "f32"]) == 0
    capsys.readouterr()
    assert main(["models", "list"]) == 0
    assert re.search(r"  mine +imported +[0-9.]+ MB", capsys.readouterr().out)
    assert "mine" in model_names()


def test_what_is_there_is_not_replaced_unless_asked(
    old: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["import", str(old), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["path"] == str(paths.models_dir() / "old") and record["largest"] == 0
    assert main(["import", str(old)]) == 1
    assert "old was imported already" in capsys.readouterr().err
    assert main(["import", str(old), "--force"]) == 0
    shutil.rmtree(paths.models_dir() / "old")
    (paths.models_dir() / "old").mkdir()
    (paths.models_dir() / "old" / "notes.txt").write_text("mine")
    assert main(["import", str(old), "--force"]) == 1
    assert "is something else already" in capsys.readouterr().err
    assert (paths.models_dir() / "old" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "nowhere: no such folder"),
        (["{old}/config.json"], "a file; name its folder"),
        (["{old}", "--to", "smollm2-135m"], "smollm2-135m is the name of another model"),
        (["{old}", "--to", "a b"], "'a b' is no name for a model"),
        (["{old}", "--config", "{old}/nothing.json"], r"nothing.json is missing; --config names"),
    ],
)
def test_wrong_words_are_one_line(
    old: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["import", *(word.format(old=old) for word in words)]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_model_that_is_being_written_is_not_listed(home: Path, tmp_path: Path) -> None:
    save_talker(paths.models_dir() / ".mine.x1y2")
    assert models.trained() == []


def test_what_a_killed_import_left_goes_with_the_next_one(
    old: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    left = paths.models_dir() / ".mine.x1y2z3w4"
    others = [paths.models_dir() / name for name in (".mine.notes", ".mine2.x1y2z3w4")]
    for folder in (left, *others):
        folder.mkdir(parents=True)
    assert main(["import", str(old), "--to", "mine"]) == 0
    assert sorted(paths.models_dir().iterdir()) == [*others, paths.models_dir() / "mine"]


class Hostile:
    """Runs a command when a common loader opens it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


def test_a_hostile_pickle_is_one_line_and_nothing_of_it_runs(
    old: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"model.norm.weight": Hostile(tmp_path / "ran")}, old / "pytorch_model.bin")
    assert main(["import", str(old), "--to", "mine"]) == 1
    error = capsys.readouterr().err
    assert "asks for posix.system, which is no tensor" in error and error.count("\n") == 1
    assert not (tmp_path / "ran").exists() and models.trained() == []


def test_rm_deletes_what_an_import_wrote(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", str(old), "--to", "mine"]) == 0
    folder = paths.models_dir() / "mine"
    (folder / "notes.txt").write_text("mine")
    assert main(["models", "rm", "mine"]) == 2
    assert main(["models", "rm", "mine", "--yes"]) == 0
    assert (
        f"kept, because import did not create it: {folder / 'notes.txt'}" in capsys.readouterr().err
    )
    assert [path.name for path in folder.iterdir()] == ["notes.txt"] and models.trained() == []
    (folder / "notes.txt").unlink()
    assert main(["import", str(old), "--to", "mine"]) == 0
    assert main(["models", "rm", "mine", "--yes"]) == 0
    assert not folder.exists()


def test_pickles_of_the_hub_cache_are_found_by_the_repository(
    old: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    snapshot = cache_repository(tmp_path / "hub", "org/Talker-Chat")
    shutil.rmtree(snapshot)
    shutil.copytree(old, snapshot)
    assert main(["models", "show", "org/Talker-Chat"]) == 3
    assert "`sparsechat import org/Talker-Chat` makes safetensors" in capsys.readouterr().err
    assert main(["import", "org/Talker-Chat"]) == 0
    found = models.resolve("Talker-Chat")
    assert found.source == "imported"
    config = json.loads((found.path / "config.json").read_text())
    assert config["_name_or_path"] == "org/Talker-Chat"
    assert main(["import", "org/another"]) == 1
    assert "no such folder, and no pickles in the hub cache" in capsys.readouterr().err
