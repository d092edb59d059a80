from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import NamedTuple

import pytest

from data import files

needs_permissions = pytest.mark.skipif(
    os.name == "nt" or not hasattr(os, "geteuid") or os.geteuid() == 0,
    reason="the file system does not refuse this user anything",
)


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps no mode bits")
def test_private_folders_are_closed_to_others_up_to_the_first_that_existed(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    made = files.private_folder(tmp_path / "a" / "b" / "c")
    assert [(p.stat().st_mode & 0o777) for p in (made, made.parent, made.parent.parent)] == [
        0o700
    ] * 3
    assert tmp_path.stat().st_mode & 0o777 == 0o755


def test_a_folder_that_cannot_be_created_names_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match=r"cannot write to the folder .*SPARSECHAT_HOME") as caught:
        files.private_folder(tmp_path / "file" / "below")
    assert "\n" not in str(caught.value)


@needs_permissions
def test_a_read_only_parent_is_one_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match="Permission denied; set SPARSECHAT_HOME"):
        files.private_folder(tmp_path / "below")


def test_an_existing_folder_that_cannot_be_written_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(PermissionError, match="Permission denied; set SPARSECHAT_HOME"):
        files.private_folder(tmp_path)


def test_written_json_reads_back_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    target = tmp_path / "model.json"
    files.write_json(target, {"name": "ä"})
    files.write_json(target, {"name": "ö"})
    assert json.loads(target.read_text("utf-8")) == {"name": "ö"}
    assert list(tmp_path.iterdir()) == [target]


def test_json_that_fails_half_way_leaves_the_old_file_alone(tmp_path: Path) -> None:
    target = tmp_path / "model.json"
    files.write_json(target, {"old": True})
    with pytest.raises(TypeError):
        files.write_json(target, {"begins": "well", "then": object()})
    assert json.loads(target.read_text("utf-8")) == {"old": True}
    assert list(tmp_path.iterdir()) == [target]


def test_sha256_agrees_with_hashlib_and_counts_the_bytes(tmp_path: Path) -> None:
    content = bytes(range(256)) * 10_000
    (tmp_path / "f").write_bytes(content)
    seen: list[int] = []
    assert files.sha256_of(tmp_path / "f", seen.append) == hashlib.sha256(content).hexdigest()
    assert seen[-1] == len(content)
    assert len(seen) == 3


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_missing_space_is_told_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(100, 40, 60))
    files.require_space(tmp_path, 60)
    with pytest.raises(files.DiskFullError, match=r"1,940 more bytes .*SPARSECHAT_HOME") as caught:
        files.require_space(tmp_path, 2000)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("name", ["ENOSPC", "EDQUOT"])
def test_a_full_disk_or_quota_becomes_one_error(tmp_path: Path, name: str) -> None:
    number = getattr(errno, name, errno.ENOSPC)
    with pytest.raises(files.DiskFullError, match="12,345 more bytes"):
        with files.room(tmp_path, lambda: 12_345):
            raise OSError(number, "no room")


def test_other_errors_pass_through_unchanged(tmp_path: Path) -> None:
    with pytest.raises(PermissionError):
        with files.room(tmp_path, lambda: 1):
            raise PermissionError(errno.EACCES, "no")


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [(512, "0.5 kB"), (98_362_432, "98.4 MB"), (2_200_119_864, "2.20 GB")],
)
def test_sizes_for_people(n_bytes: int, text: str) -> None:
    assert files.megabytes(n_bytes) == text
