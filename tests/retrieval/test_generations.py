from __future__ import annotations

import gc
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrieval import generations, manifest
from retrieval.damage import DamagedError
from tests.retrieval import plain_backend

FACTS = {
    "base_id": "b",
    "encoder_id": "e",
    "backend": "faiss",
    "last_chunk_id": 9,
    "commit": 4,
    "chunker": "sentences-1",
}


@pytest.fixture(autouse=True)
def _backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrieval.backends.backend", lambda name: plain_backend)


def write(folder: Path, first: int = 0) -> dict[str, Any]:
    blocks = [(np.arange(first, first + 4), np.eye(4, dtype=np.float32))]
    return plain_backend.build(folder, blocks, 4, 4)


def publish(base: Path, first: int = 0) -> manifest.Manifest:
    return generations.publish(base, lambda folder: write(folder, first), FACTS)


def names(base: Path) -> list[str]:
    return sorted(path.name for path in base.iterdir())


def test_where_nothing_was_published_there_is_none(tmp_path: Path) -> None:
    assert generations.current(tmp_path) is None
    assert generations.open_current(tmp_path) is None


def test_a_published_generation_is_what_was_built(tmp_path: Path) -> None:
    built = publish(tmp_path, first=3)
    assert names(tmp_path) == ["CURRENT", "gen-000001"]
    generation = generations.open_current(tmp_path)
    assert generation is not None
    assert (generation.number, generation.count, generation.last_chunk_id) == (1, 4, 9)
    assert generation.manifest == built
    ids, cosines = generation.search(np.eye(4, dtype=np.float32)[:1], 2, np.array([3]))
    assert ids.tolist()[0][0] == 4 and cosines.shape == (1, 2)
    generation.close()


def test_an_older_generation_stays_until_its_readers_are_gone(tmp_path: Path) -> None:
    publish(tmp_path)
    reader = generations.open_current(tmp_path)
    assert reader is not None
    publish(tmp_path)
    assert names(tmp_path) == ["CURRENT", "gen-000001", "gen-000002"]
    publish(tmp_path)
    assert names(tmp_path) == ["CURRENT", "gen-000001", "gen-000003"]
    reader.close()
    publish(tmp_path)
    assert names(tmp_path) == ["CURRENT", "gen-000004"]


def test_a_reader_that_is_dropped_holds_nothing(tmp_path: Path) -> None:
    publish(tmp_path)
    reader = generations.open_current(tmp_path)
    publish(tmp_path)
    assert (tmp_path / "gen-000001").is_dir()
    del reader
    gc.collect()
    generations.sweep(tmp_path)
    assert names(tmp_path) == ["CURRENT", "gen-000002"]


def test_a_build_that_fails_changes_nothing(tmp_path: Path) -> None:
    publish(tmp_path)

    def fail(folder: Path) -> dict[str, Any]:
        write(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generations.publish(tmp_path, fail, FACTS)
    assert names(tmp_path) == ["CURRENT", "gen-000001"]


@pytest.mark.parametrize("step", ["rename", "replace"])
def test_a_kill_at_any_step_leaves_the_current_generation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    publish(tmp_path)
    with monkeypatch.context() as patch:
        # as a kill does: nothing is tidied up
        patch.setattr(generations.shutil, "rmtree", lambda *a, **k: None)

        def die(*arguments: object) -> None:
            raise SystemExit

        patch.setattr(os, step, die)
        with pytest.raises(SystemExit):
            publish(tmp_path)
    generation = generations.open_current(tmp_path)
    assert generation is not None and generation.number == 1
    generation.close()
    publish(tmp_path)
    left = [name for name in names(tmp_path) if name.startswith("gen-")]
    assert len(left) == 1 and generations.current(tmp_path) == left[0]


@pytest.mark.parametrize("name", ["ids.npy", "vectors.npy", "manifest.json"])
def test_every_changed_byte_of_a_generation_is_noticed(tmp_path: Path, name: str) -> None:
    publish(tmp_path)
    path = tmp_path / "gen-000001" / name
    whole = path.read_bytes()
    for at in range(0, len(whole), max(1, len(whole) // 40)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(DamagedError, match=name.replace(".", r"\.")):
            generations.open_current(tmp_path)
    path.write_bytes(whole)
    generation = generations.open_current(tmp_path)
    assert generation is not None
    generation.close()


def test_every_changed_byte_of_the_pointer_is_noticed_or_harmless(tmp_path: Path) -> None:
    publish(tmp_path)
    path = tmp_path / "CURRENT"
    whole = path.read_bytes()
    n_noticed = 0
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        try:
            assert generations.current(tmp_path) == "gen-000001"
        except DamagedError:
            n_noticed += 1
    assert n_noticed > 100


@pytest.mark.parametrize("name", ["ids.npy", "manifest.json"])
def test_a_missing_file_is_noticed(tmp_path: Path, name: str) -> None:
    publish(tmp_path)
    (tmp_path / "gen-000001" / name).unlink()
    with pytest.raises(DamagedError, match="gen-000001"):
        generations.open_current(tmp_path)


def test_a_file_too_many_is_noticed(tmp_path: Path) -> None:
    publish(tmp_path)
    (tmp_path / "gen-000001" / "more.bin").write_bytes(b"x")
    with pytest.raises(DamagedError, match=r"its files are .*more\.bin"):
        generations.open_current(tmp_path)


def test_a_backend_that_finds_its_files_wrong_is_believed(tmp_path: Path) -> None:
    publish(tmp_path)
    folder = tmp_path / "gen-000001"
    values = json.loads((folder / "manifest.json").read_text())
    values["index"]["count"] = 5
    (folder / "manifest.json").write_text(json.dumps(values))
    pointer = json.loads((tmp_path / "CURRENT").read_text())
    pointer["sha256"] = generations.files.sha256_of(folder / "manifest.json")
    pointer["crc"] = generations.row_crc(pointer["generation"], pointer["sha256"])
    (tmp_path / "CURRENT").write_text(json.dumps(pointer))
    with pytest.raises(DamagedError, match="holds 4 vectors, not 5"):
        generations.open_current(tmp_path)


def test_what_is_damaged_is_set_aside_and_stays(tmp_path: Path) -> None:
    publish(tmp_path)
    (tmp_path / "gen-000001" / "ids.npy").write_bytes(b"")
    generations.set_current_aside(tmp_path)
    (aside,) = tmp_path.iterdir()
    assert re.fullmatch(r"gen-000001\.damaged-\d{8}-\d{6}", aside.name)
    assert sorted(p.name for p in aside.iterdir()) == [
        "CURRENT",
        "ids.npy",
        "manifest.json",
        "vectors.npy",
    ]
    assert generations.open_current(tmp_path) is None
    publish(tmp_path)
    assert aside.is_dir()


def test_a_pointer_that_names_nothing_is_set_aside(tmp_path: Path) -> None:
    publish(tmp_path)
    (tmp_path / "CURRENT").write_text("nothing")
    publish(tmp_path)
    assert generations.current(tmp_path) == "gen-000002"
    assert len(list(tmp_path.glob("CURRENT.damaged-*"))) == 1


def test_files_are_hashed_once_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(tmp_path)
    hashed: list[str] = []
    real = generations.files.sha256_of

    def count(path: Path) -> str:
        hashed.append(path.name)
        return real(path)

    monkeypatch.setattr(generations.files, "sha256_of", count)
    for _ in range(3):
        generation = generations.open_current(tmp_path)
        assert generation is not None
        generation.close()
    assert sorted(hashed) == ["ids.npy", *["manifest.json"] * 3, "vectors.npy"]
    os.utime(tmp_path / "gen-000001" / "ids.npy", ns=(1, 1))
    generation = generations.open_current(tmp_path)
    assert generation is not None and hashed.count("ids.npy") == 2
    generation.close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 9}, "its version is 9, not 1"),
        ({"count": "four"}, "count is not of type int"),
        ({"more": 1}, "its keys are not those of a manifest"),
    ],
)
def test_a_strange_manifest_is_one_line(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    publish(tmp_path)
    path = tmp_path / "gen-000001" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(manifest.ManifestError, match=message):
        manifest.read(path.parent)


def test_a_generation_that_is_replaced_while_it_is_opened_is_looked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tmp_path)
    real, calls = generations._open, []

    def replaced_meanwhile(folder: Path, digest: str) -> generations.Generation:
        calls.append(folder.name)
        if len(calls) == 1:
            publish(tmp_path)
            assert not folder.exists()
        return real(folder, digest)

    monkeypatch.setattr(generations, "_open", replaced_meanwhile)
    generation = generations.open_current(tmp_path)
    assert generation is not None and generation.number == 2
    assert calls == ["gen-000001", "gen-000002"]
    generation.close()
