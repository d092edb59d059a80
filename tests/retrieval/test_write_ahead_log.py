from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from retrieval import write_ahead_log
from retrieval.write_ahead_log import committed_pages

PAGE = 4096


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.sqlite"


@pytest.fixture
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    opened = sqlite3.connect(path, isolation_level=None)
    opened.execute("PRAGMA journal_mode=WAL")
    opened.execute("PRAGMA wal_autocheckpoint=0")
    opened.execute("CREATE TABLE t (x)")
    yield opened
    opened.close()


def put(connection: sqlite3.Connection, n: int) -> None:
    with connection:
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO t VALUES (?)", [(bytes(1000),)] * n)


def changed_by_checkpoint(connection: sqlite3.Connection, path: Path) -> set[int]:
    """The pages that SQLite's own checkpoint changes, in a copy of the file."""
    before = path.read_bytes()
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
    after = path.read_bytes()
    return {
        at // PAGE
        for at in range(0, len(after), PAGE)
        if after[at : at + PAGE] != before[at : at + PAGE]
    }


def test_without_a_log_no_page_is_in_it(path: Path) -> None:
    assert committed_pages(path) == set()


def test_the_pages_are_those_that_a_checkpoint_writes(
    connection: sqlite3.Connection, path: Path
) -> None:
    for n in (1, 50, 3):
        put(connection, n)
    pages = committed_pages(path)
    assert len(pages) > 10
    assert changed_by_checkpoint(connection, path) <= pages
    assert pages == set(range(max(pages) + 1))


def test_a_log_that_began_anew_holds_its_new_frames_only(
    connection: sqlite3.Connection, path: Path
) -> None:
    put(connection, 200)
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
    assert len(committed_pages(path)) > 40  # still there until the next commit
    put(connection, 1)
    pages = committed_pages(path)
    assert 1 <= len(pages) <= 4
    assert changed_by_checkpoint(connection, path) <= pages


def test_blocks_of_frames_are_one_chain(
    connection: sqlite3.Connection, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(connection, 100)
    whole = committed_pages(path)
    monkeypatch.setattr(write_ahead_log, "_AT_ONCE", 7)
    assert committed_pages(path) == whole


def test_what_was_not_committed_does_not_count(connection: sqlite3.Connection, path: Path) -> None:
    put(connection, 1)
    before = committed_pages(path)
    log = path.with_name("a.sqlite-wal")
    size = log.stat().st_size
    connection.execute("PRAGMA cache_size=5")
    connection.execute("BEGIN")
    connection.executemany("INSERT INTO t VALUES (?)", [(bytes(1000),)] * 200)
    assert log.stat().st_size > size + 30 * PAGE  # written early, because the cache is small
    assert committed_pages(path) == before
    connection.execute("ROLLBACK")


def test_a_damaged_frame_ends_the_log_as_it_does_for_sqlite(
    connection: sqlite3.Connection, path: Path, tmp_path: Path
) -> None:
    for _ in range(12):
        put(connection, 3)
    log = path.with_name("a.sqlite-wal").read_bytes()
    frame = PAGE + 24
    seen = set()
    for at in range(0, len(log), 1733):
        copy = tmp_path / "copy" / path.name
        copy.parent.mkdir()
        shutil.copyfile(path, copy)
        damaged = bytearray(log)
        damaged[at] ^= 4
        copy.with_name("a.sqlite-wal").write_bytes(damaged)
        pages = committed_pages(copy)
        other = sqlite3.connect(copy)
        n_rows = other.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        n_rows = n_rows and other.execute("SELECT count(*) FROM t").fetchone()[0]
        n_frames = other.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1]
        other.close()
        numbers = [
            int.from_bytes(log[32 + i * frame : 36 + i * frame], "big") - 1 for i in range(n_frames)
        ]
        assert pages == set(numbers), (at, n_rows)
        seen.add(n_frames)
        shutil.rmtree(copy.parent)
    assert len(seen) > 5


@pytest.mark.parametrize("content", [b"", b"short", bytes(5000), b"\xff" * 5000])
def test_something_else_is_an_empty_log(path: Path, content: bytes) -> None:
    path.with_name("a.sqlite-wal").write_bytes(content)
    assert committed_pages(path) == set()
