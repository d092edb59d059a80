from __future__ import annotations

import json
from pathlib import Path

import pytest

from data import files, records
from data.catalogue import HubSource, RegisteredModel
from data.records import FileRecord, InstalledModel

MODEL = RegisteredModel("tiny", "Tiny", (HubSource("org/tiny"),), licence="MIT")


def install(
    model: RegisteredModel = MODEL, *names: str, content: bytes = b"12345"
) -> InstalledModel:
    staging = files.private_folder(records.partial_folder(model.name) / "staging")
    held = []
    for name in names or ("tiny.gguf",):
        (staging / name).parent.mkdir(exist_ok=True)
        (staging / name).write_bytes(content)
        held.append(FileRecord(name, len(content), f"hash of {name}"))
    return records.install(model, staging, held, "somewhere")


def test_what_was_installed_is_found_again(home: Path) -> None:
    made = install()
    assert records.find("tiny") == made
    assert records.all_installed() == [made]
    assert made.path == home / "data" / "models" / "tiny" / "tiny.gguf"
    assert (made.size, made.sha256, made.licence) == (5, "hash of tiny.gguf", "MIT")
    written = json.loads((made.folder / "model.json").read_text())
    assert list(written) == [
        *("name", "file", "size", "sha256", "source", "licence", "pulled_at", "files")
    ]


def test_a_directory_of_several_files_is_its_own_path(home: Path) -> None:
    model = RegisteredModel("Org/Tiny", "Tiny", ())
    made = install(model, "config.json", "model.safetensors")
    assert made.path == made.folder == home / "data" / "models" / "org--tiny"
    assert (made.file, made.sha256) == (None, "hash of model.safetensors")
    assert records.find("org/tiny") == made


def test_shards_have_no_single_hash(home: Path) -> None:
    names = ("config.json", "model-1-of-2.safetensors", "model-2-of-2.safetensors")
    assert install(MODEL, *names).sha256 is None


def test_nothing_is_installed_in_an_empty_home(home: Path) -> None:
    assert records.all_installed() == []
    assert records.find("tiny") is None
    assert not home.exists()


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "null", '{"name": "tiny"}', "\x00", '{"files": [{"name": 1}]}']
)
def test_a_record_that_makes_no_sense_is_not_installed(home: Path, text: str) -> None:
    made = install()
    (made.folder / "model.json").write_text(text)
    assert records.find("tiny") is None
    assert records.all_installed() == []


def test_a_model_whose_file_is_gone_or_cut_is_not_installed(home: Path) -> None:
    made = install()
    made.path.write_bytes(b"123")
    assert records.find("tiny") is None
    made.path.unlink()
    assert records.find("tiny") is None


def test_a_record_cannot_name_files_elsewhere(home: Path) -> None:
    made = install()
    outside = made.folder.parent / "outside"
    outside.write_bytes(b"12345")
    text = (made.folder / "model.json").read_text()
    for name in ("../outside", str(outside)):
        (made.folder / "model.json").write_text(text.replace("tiny.gguf", name))
        assert records.find("tiny") is None


@pytest.mark.parametrize("name", ["", ".", "..", ".partial", "..\\x", "c:x", "a\0b"])
def test_a_name_cannot_lead_out_of_the_folder(home: Path, name: str) -> None:
    install()
    assert records.find(name) is None


def test_two_names_for_one_folder_are_not_confused(home: Path) -> None:
    install(RegisteredModel("org/tiny", "Tiny", ()))
    assert records.find("org--tiny") is None


def test_installing_again_replaces_ours_and_keeps_the_users_files(home: Path) -> None:
    first = install()
    (first.folder / "notes.txt").write_text("mine")
    second = install(content=b"123456")
    assert second.path.read_bytes() == b"123456"
    assert (first.folder / "notes.txt").read_text() == "mine"


def test_leftovers_in_the_staging_folder_are_not_installed(home: Path) -> None:
    staging = files.private_folder(records.partial_folder("tiny") / "staging")
    (staging / "tiny.gguf.tmp-1").write_bytes(b"cut")
    (staging / "old").mkdir()
    (staging / "old" / "shard.safetensors").write_bytes(b"old")
    made = install(MODEL, "sub/tiny.gguf")
    assert sorted(p.relative_to(made.folder).as_posix() for p in made.folder.rglob("*")) == [
        "model.json",
        "sub",
        "sub/tiny.gguf",
    ]


def test_removing_takes_what_pull_made_and_nothing_else(home: Path) -> None:
    made = install(MODEL, "sub/tiny.gguf", "sub/other.gguf")
    partial = files.private_folder(records.partial_folder("tiny"))
    (made.folder / "sub" / "notes.txt").write_text("mine")
    assert records.remove(made) == [made.folder / "sub"]
    assert [p for p in made.folder.rglob("*") if p.is_file()] == [made.folder / "sub/notes.txt"]
    assert not partial.exists()
    assert records.find("tiny") is None


def test_removing_leaves_no_folder_behind(home: Path) -> None:
    made = install(MODEL, "sub/tiny.gguf")
    assert records.remove(made) == []
    assert not made.folder.exists()
