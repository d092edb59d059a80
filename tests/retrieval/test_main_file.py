from __future__ import annotations

import gc
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from retrieval import main_file
from retrieval.main_file import MainFile
from retrieval.store import Store


def test_a_file_is_read_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"0123456789")
    file = MainFile(path)
    assert (file.read(4, 3), file.read(99, 8), file.read(5, 50)) == (b"3456", b"89", b"")
    assert file.stamp() == (10, path.stat().st_mtime_ns, path.stat().st_ino)
    file.copy_to(tmp_path / "g")
    assert (tmp_path / "g").read_bytes() == b"0123456789"
    file.close()
    file.close()


def test_a_file_is_open_once_until_its_last_user_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x")
    files = [MainFile(path) for _ in range(3)]
    key = path.stat().st_dev, path.stat().st_ino
    (descriptor,) = main_file._shared[key].descriptors
    for file in files:
        assert file.read(1, 0) == b"x"
        file.close()
    assert key not in main_file._shared
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_a_file_that_is_dropped_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x")
    file = MainFile(path)
    key = path.stat().st_dev, path.stat().st_ino
    assert key in main_file._shared
    del file
    gc.collect()
    assert key not in main_file._shared


def test_a_file_put_in_its_place_is_another(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"old")
    old = MainFile(path)
    assert old.is_at(path)
    (tmp_path / "g").write_bytes(b"new")
    os.replace(tmp_path / "g", path)
    assert not old.is_at(path)
    new = MainFile(path)
    assert (old.read(3, 0), new.read(3, 0)) == (b"old", b"new")
    old.close()
    new.close()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows locks belong to handles")
def test_reading_the_file_leaves_sqlite_its_locks(tmp_path: Path) -> None:
    """Else the next process to open the base takes itself for the first, empties the shared index
    that this one has mapped, and this one ends with a bus error."""
    with Store.create(tmp_path / "base") as writer, Store.open(tmp_path / "base") as reader:
        writer.db.verify(always=True)
        reader.db.verify(always=True)
        Store.open(tmp_path / "base").close()
        script = """if True:
            import sqlite3, sys
            other = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=0)
            other.execute("PRAGMA locking_mode=EXCLUSIVE")
            try:
                other.execute("PRAGMA journal_mode=DELETE")
                print("taken")
            except sqlite3.OperationalError as error:
                print(error)
        """
        path = tmp_path / "base" / "knowledge.sqlite"
        ran = subprocess.run(
            [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True
        )
        assert ran.stdout == "database is locked\n"
        assert reader.state().commit == 0
        assert sqlite3.connect(path).execute("PRAGMA journal_mode").fetchone() == ("wal",)
