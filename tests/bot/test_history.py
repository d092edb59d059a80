from __future__ import annotations

from pathlib import Path

import pytest

from bot import history
from bot.history import DiskHistory
from bot.opening import open_history


def entries(path: Path) -> list[str]:
    """Oldest first."""
    return list(DiskHistory(path).load_history_strings())[::-1]


def test_entries_come_back_whole_and_the_file_is_private(tmp_path: Path) -> None:
    path = tmp_path / "state" / "history"
    disk = DiskHistory(path)
    for text in ("one", "two\nlines", "é 😀", "a\rb\x00"):
        disk.store_string(text)
    assert entries(path) == ["one", "two\nlines", "é 😀", "a\rb\x00"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    path = tmp_path / "history"
    path.write_text("# earlier\n+hello\n")
    path.chmod(0o644)
    assert entries(path) == ["hello"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_damaged_bytes_are_read_as_far_as_they_go(tmp_path: Path) -> None:
    path = tmp_path / "history"
    path.write_bytes(b"\x00\xff garbage\n+fine\n\n+\xff\xfe\n")
    assert entries(path) == ["fine", "\ufffd\ufffd"]


def test_a_pasted_file_is_not_written_to_disk(tmp_path: Path) -> None:
    path = tmp_path / "history"
    DiskHistory(path).store_string("x" * (history.MAX_ENTRY_CHARS + 1))
    assert entries(path) == []


def test_the_file_is_trimmed_to_the_newest_entries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "MAX_ENTRIES", 3)
    path = tmp_path / "history"
    disk = DiskHistory(path)
    for number in range(7):
        disk.store_string(str(number))
    assert entries(path) == ["4", "5", "6"]
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["history"]


def test_a_disk_that_fills_up_later_loses_the_entry_and_nothing_else(tmp_path: Path) -> None:
    disk = DiskHistory(tmp_path / "history")
    (tmp_path / "history").unlink()
    (tmp_path / "history").mkdir()
    disk.append_string("hello")
    assert disk.get_strings() == ["hello"]


def test_a_history_that_cannot_be_kept_is_one_warning(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "state" / "history").mkdir(parents=True)
    open_history(wanted=True, logs=True).append_string("kept in memory")
    err = capsys.readouterr().err
    assert err.startswith("warning: what you type is kept in memory only: ")
    assert err.count("\n") == 1


def test_no_history_writes_nothing(home: Path) -> None:
    open_history(wanted=False, logs=True).append_string("secret")
    assert not home.exists()
