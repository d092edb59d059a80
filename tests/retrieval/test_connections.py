from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from data.files import DiskFullError
from retrieval.changes import put_document
from retrieval.connections import connect, in_our_words, translated
from retrieval.damage import DamagedError
from retrieval.store import Store
from retrieval.writer_lock import BusyError
from tests.retrieval.documents import document

PATH = Path("/bases/notes/knowledge.sqlite")


def an_error(code: int, text: str = "text") -> sqlite3.DatabaseError:
    error = sqlite3.OperationalError(text)
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (an_error(sqlite3.SQLITE_CORRUPT_VTAB), DamagedError, "notes is damaged"),
        (an_error(sqlite3.SQLITE_NOTADB), DamagedError, "verify notes --repair"),
        (an_error(sqlite3.SQLITE_BUSY), BusyError, "locked by another process"),
        (an_error(sqlite3.SQLITE_FULL), DiskFullError, "the disk is full"),
        (an_error(sqlite3.SQLITE_IOERR), OSError, "is the disk there"),
        (sqlite3.OperationalError("Could not decode to UTF-8 column"), DamagedError, "decode"),
    ],
)
def test_sqlites_errors_are_said_in_one_line(
    error: sqlite3.DatabaseError, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words) as caught:
        with translated(PATH):
            raise error
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is error


def test_our_own_mistakes_stay_what_they_are() -> None:
    error = an_error(sqlite3.SQLITE_CONSTRAINT)
    assert in_our_words(error, PATH) is error


def test_a_reader_cannot_write(store: Store) -> None:
    connection = connect(store.db.path, "ro")
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        connection.execute("DELETE FROM state")
    connection.close()


def test_a_full_disk_leaves_the_last_commit(store: Store) -> None:
    (n_pages,) = store.db.rows("PRAGMA page_count")[0]
    store.db.execute(f"PRAGMA max_page_count={n_pages + 2}")  # as if there were no room for more
    before = store.state()
    with pytest.raises(DiskFullError, match=r"the disk is full: .* what is committed stays"):
        with store.db.transaction() as counts:
            for i in range(50):
                put_document(store.db, counts, document(i), [], sha256=bytes(32))
    assert store.state() == before
    store.db.execute("PRAGMA max_page_count=1000000")
    with store.db.transaction() as counts:
        put_document(store.db, counts, document(1), [], sha256=bytes(32))
    assert store.state().n_documents == 1
