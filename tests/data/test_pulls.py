from __future__ import annotations

import errno
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data import catalogue, files, hub, locks, models, pulls, records, wheels
from data.catalogue import HubSource, RegisteredModel
from data.download import DownloadError
from data.files import DiskFullError
from tests.data.file_server import FileServer
from tests.data.wheel_maker import MODEL, make_wheel, sha256, tiny_model


@pytest.fixture
def tiny(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RegisteredModel:
    """A registered model whose package lies in a local folder."""
    wheel = make_wheel(tmp_path / "wheels")
    monkeypatch.setattr(wheels, "locate", lambda package, version: (wheel.as_uri(), None))
    return register(monkeypatch, tiny_model(wheel))


def register(monkeypatch: pytest.MonkeyPatch, model: RegisteredModel) -> RegisteredModel:
    monkeypatch.setattr(catalogue, "find", lambda name: model if name == model.name else None)
    monkeypatch.setattr(catalogue, "models", lambda: [model])
    return model


def fail_to_locate(monkeypatch: pytest.MonkeyPatch) -> None:
    def locate(package: str, version: str) -> Any:
        raise DownloadError("the package index cannot be reached")

    monkeypatch.setattr(wheels, "locate", locate)


def everything_below(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_a_pulled_model_is_installed_verified_and_found(tiny: RegisteredModel, home: Path) -> None:
    seen: list[str] = []
    made = models.pull("tiny", lambda stage, done, total: seen.append(stage))
    assert made.path.read_bytes() == MODEL
    assert made.sha256 == sha256(MODEL)
    assert made.source == "package tiny-model 1.0"
    assert models.resolve("tiny").path == made.path
    assert list(dict.fromkeys(seen)) == ["asking the package index for tiny-model", "unpacking"]
    assert everything_below(home) == [
        "data/models/tiny/model.json",
        "data/models/tiny/tiny.gguf",
    ]


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps no mode bits")
def test_the_models_folder_is_closed_to_others(tiny: RegisteredModel, home: Path) -> None:
    made = models.pull("tiny")
    assert [(p.stat().st_mode & 0o077) for p in (home, made.folder.parent, made.folder)] == [0] * 3


def test_the_next_source_is_tried_and_the_user_is_told(
    tiny: RegisteredModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_to_locate(monkeypatch)
    register(monkeypatch, replace(tiny, sources=(*tiny.sources, HubSource("org/tiny", "v1"))))
    answer = hub.Listing("c0ffee", (hub.HubFile("tiny.gguf", len(MODEL), sha256(MODEL)),), "mit")
    monkeypatch.setattr(hub, "look_up", lambda source: answer)

    def download(repository: str, name: str, commit: str, folder: Path) -> None:
        (folder / name).write_bytes(MODEL)

    monkeypatch.setattr(hub, "_download", download)
    notes: list[str] = []
    made = models.pull("tiny", on_note=notes.append)
    assert notes == ["package tiny-model 1.0 failed, trying hub repository org/tiny"]
    assert made.source == "hub repository org/tiny@c0ffee"
    assert made.licence == "Apache-2.0"
    assert made.path.read_bytes() == MODEL


def test_a_hub_that_states_another_hash_is_not_asked_for_the_file(
    tiny: RegisteredModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(monkeypatch, replace(tiny, sources=(HubSource("org/tiny"),)))
    answer = hub.Listing("c0ffee", (hub.HubFile("tiny.gguf", len(MODEL), "0" * 64),), None)
    monkeypatch.setattr(hub, "look_up", lambda source: answer)
    monkeypatch.setattr(hub, "_download", None)
    with pytest.raises(DownloadError, match=f"SHA-256 is {'0' * 64}, expected is {tiny.sha256}"):
        models.pull("tiny")


def test_our_hash_holds_where_the_hub_states_none(
    tiny: RegisteredModel, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    register(monkeypatch, replace(tiny, sources=(HubSource("org/tiny"),)))
    answer = hub.Listing("c0ffee", (hub.HubFile("tiny.gguf", 3, None),), None)
    monkeypatch.setattr(hub, "look_up", lambda source: answer)

    def download(repository: str, name: str, commit: str, folder: Path) -> None:
        (folder / name).write_bytes(b"bad")

    monkeypatch.setattr(hub, "_download", download)
    with pytest.raises(DownloadError, match="expected"):
        models.pull("tiny")
    assert everything_below(home) == []


def test_when_all_sources_fail_there_is_a_line_for_each_and_a_way_out(
    tiny: RegisteredModel, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    fail_to_locate(monkeypatch)
    register(monkeypatch, replace(tiny, sources=(*tiny.sources, HubSource("org/tiny"))))

    def look_up(source: HubSource) -> Any:
        raise DownloadError("the hub cannot be reached")

    monkeypatch.setattr(hub, "look_up", look_up)
    with pytest.raises(DownloadError) as caught:
        models.pull("tiny")
    assert [line.strip() for line in str(caught.value).splitlines()] == [
        "tiny could not be pulled:",
        "package tiny-model 1.0: the package index cannot be reached",
        "hub repository org/tiny: the hub cannot be reached",
        "connect to a package index (or set PIP_FIND_LINKS to a folder with the package) and run "
        "the same command; or name a file: --model FILE.gguf",
    ]
    assert everything_below(home) == []
    assert list((home / "data" / "models" / ".partial").iterdir()) == []


def over_http(
    tiny: RegisteredModel, server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.content = (tmp_path / "wheels" / "tiny_model-1.0-py3-none-any.whl").read_bytes()
    monkeypatch.setattr(wheels, "locate", lambda package, version: (server.url, None))


def test_an_interrupted_pull_is_resumed_by_the_next(
    tiny: RegisteredModel,
    server: FileServer,
    tmp_path: Path,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    over_http(tiny, server, tmp_path, monkeypatch)

    def interrupt(stage: str, done: int, total: int | None) -> None:
        if done > 100_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        models.pull("tiny", interrupt)
    part = home / "data/models/.partial/tiny/tiny-model-1.0.whl.part"
    kept = part.stat().st_size
    assert models.installed() == []
    assert not part.parent.with_name("tiny.lock").exists()
    made = models.pull("tiny")
    assert server.requests == [None, f"bytes={kept}-"]
    assert made.path.read_bytes() == MODEL
    assert everything_below(home) == ["data/models/tiny/model.json", "data/models/tiny/tiny.gguf"]


def test_an_interruption_while_unpacking_leaves_the_wheel_and_no_model(
    tiny: RegisteredModel,
    server: FileServer,
    tmp_path: Path,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    over_http(tiny, server, tmp_path, monkeypatch)

    def interrupt(stage: str, done: int, total: int | None) -> None:
        if stage == "unpacking":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        models.pull("tiny", interrupt)
    assert [name for name in everything_below(home) if not name.endswith((".part", ".json"))] == []
    models.pull("tiny")
    assert server.requests == [None]


def test_a_wrong_wheel_leaves_nothing(
    tiny: RegisteredModel,
    server: FileServer,
    tmp_path: Path,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    over_http(tiny, server, tmp_path, monkeypatch)
    server.content = server.content[::-1]
    with pytest.raises(DownloadError, match=r"has SHA-256 .* is expected"):
        models.pull("tiny")
    assert everything_below(home) == []


@pytest.mark.parametrize("stage", ["downloading", "unpacking"])
def test_a_full_disk_stops_at_once_and_leaves_nothing(
    tiny: RegisteredModel,
    server: FileServer,
    tmp_path: Path,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
) -> None:
    over_http(tiny, server, tmp_path, monkeypatch)
    register(monkeypatch, replace(tiny, sources=(*tiny.sources, HubSource("org/tiny"))))
    monkeypatch.setattr(hub, "look_up", None)

    def fill(now: str, done: int, total: int | None) -> None:
        if now == stage and done > 100_000:  # inside the block that writes
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DiskFullError, match=r"more bytes .*SPARSECHAT_HOME"):
        models.pull("tiny", fill)
    assert everything_below(home) == []


def test_a_disk_that_is_full_when_the_record_is_written_leaves_nothing(
    tiny: RegisteredModel, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, value: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "write_json", full)
    with pytest.raises(DiskFullError):
        models.pull("tiny")
    assert everything_below(home) == []


def test_a_home_that_cannot_be_written_is_one_line(
    tiny: RegisteredModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *args: Any, **options: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(OSError, match=r"Read-only file system; set SPARSECHAT_HOME") as caught:
        models.pull("tiny")
    assert "\n" not in str(caught.value)


def test_force_fetches_anew_and_keeps_the_old_until_then(
    tiny: RegisteredModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = models.pull("tiny")
    made.path.write_bytes(bytes(len(MODEL)))  # same size, other bytes
    assert models.pull("tiny").path.read_bytes() == bytes(len(MODEL))
    assert models.pull("tiny", force=True).path.read_bytes() == MODEL
    fail_to_locate(monkeypatch)
    with pytest.raises(DownloadError):
        models.pull("tiny", force=True)
    assert models.resolve("tiny").path.read_bytes() == MODEL


def test_the_second_of_two_pulls_waits_and_finds_the_model(
    tiny: RegisteredModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "POLL_S", 0.001)
    really, fetched = wheels.fetch_member, []
    second_waits = threading.Event()

    def slow(*args: Any, **options: Any) -> None:
        fetched.append(args)
        assert second_waits.wait(10)
        really(*args, **options)

    monkeypatch.setattr(wheels, "fetch_member", slow)
    notes: list[str] = []
    made: list[Path] = []

    def note(line: str) -> None:
        notes.append(line)
        second_waits.set()

    threads = [
        threading.Thread(target=lambda: made.append(models.pull("tiny", on_note=note).path))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(made) == 2
    assert made[0] == made[1]
    assert len(fetched) == 1
    assert len(notes) == 1
    assert "waiting for process" in notes[0]


def test_a_wheel_without_a_known_hash_is_a_mistake_in_the_catalogue(
    tiny: RegisteredModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(monkeypatch, replace(tiny, sha256=None))
    with pytest.raises(ValueError, match="tiny needs file, size_bytes and sha256"):
        models.pull("tiny")


def test_staging_folders_of_different_sources_differ(tiny: RegisteredModel) -> None:
    labels = [HubSource("a/b").label, HubSource("a/c").label, tiny.sources[0].label]
    assert len({pulls.slot(label) for label in labels}) == 3
    assert not any(set(pulls.slot(label)) & set('/\\: "') for label in labels)


def test_records_know_where_partial_downloads_lie(home: Path) -> None:
    assert records.partial_folder("org/name") == home / "data/models/.partial/org--name"
