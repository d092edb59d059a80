"""SQLite connections, and SQLite's errors in our words."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from data.files import DiskFullError

from .damage import DamagedError
from .writer_lock import BusyError

BUSY_S = 30.0  # somebody goes through the log after a crash, or the seal is being checked
_CACHE_KB = 32_000
# what SQLite and its Python module say without an error code of their own
_DAMAGE = ("Could not decode to UTF-8", "no such table", "malformed database schema")


def connect(path: Path, mode: Literal["ro", "rw"]) -> sqlite3.Connection:
    """A connection in autocommit mode that any thread may use, one at a time."""
    with translated(path):
        try:
            return _opened(path, f"mode={mode}")
        except sqlite3.OperationalError:
            # a reader needs the shared index beside the file; where nobody can write, nobody does
            if mode == "rw" or os.access(path.parent, os.W_OK) or not path.is_file():
                raise
            return _opened(path, "mode=ro&immutable=1")


def _opened(path: Path, parameters: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?{parameters}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=BUSY_S,
        cached_statements=256,
    )
    try:
        connection.execute("PRAGMA wal_autocheckpoint=0")  # see database.py
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA trusted_schema=OFF")
        connection.execute("PRAGMA cell_size_check=ON")
        connection.execute(f"PRAGMA cache_size=-{_CACHE_KB}")
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """SQLite's errors inside the block as DamagedError, BusyError, DiskFullError or OSError."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise in_our_words(error, path) from error


def in_our_words(error: sqlite3.DatabaseError, path: Path) -> Exception:
    """The error to raise for one of SQLite's: of one line, or itself where it is our mistake."""
    code = _code(error)
    is_unreadable = code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
    if is_unreadable or any(words in str(error) for words in _DAMAGE):
        return DamagedError(path, str(error))
    if is_busy(error):
        return BusyError(
            f"the knowledge base {path.parent.name} is locked by another process ({error}); "
            "try again when it has finished"
        )
    if code == sqlite3.SQLITE_FULL:
        return DiskFullError(
            f"the disk is full: {path} cannot grow; what is committed stays; free some room "
            "and run the same command again"
        )
    if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
        return OSError(f"{path}: {error}; is the disk there, and may the file be read?")
    return error


def is_busy(error: sqlite3.DatabaseError) -> bool:
    """Whether others held the file for too long: nothing is wrong with it."""
    return _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _code(error: sqlite3.DatabaseError) -> int:
    """SQLite's primary result code; 0 for what its Python module says by itself."""
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
