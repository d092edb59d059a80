"""The file `knowledge.sqlite`: snapshots for readers, commits and checkpoints for one writer.

Readers open it read-only: nothing blocks them, they never checkpoint and never change the file.
All checkpoints are the writer's, and each renews the seal (retrieval/seal.py).
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from loguru import logger

from . import checks, commits, seal
from .connections import BUSY_S, connect, in_our_words, translated
from .damage import DamagedError
from .main_file import MainFile
from .schema import APPLICATION_ID, TABLES, VERSION, Value, insert, row_crc, sealed, select
from .write_ahead_log import SUFFIX as LOG
from .write_ahead_log import committed_pages
from .writer_lock import BusyError, WriterLock

FILE = "knowledge.sqlite"
CHECKPOINT_BYTES = 16 << 20  # of log, after which a commit is followed by a checkpoint
PAGE_SIZE = 4096

_whole: dict[Path, tuple[int, int, int]] = {}  # file -> its stamp when it was found whole


class Database:
    """One base's file. A writer holds the base's lock from opening to close; BusyError."""

    def __init__(self, path: Path, write: bool = False) -> None:
        self.path = path
        self._idle: list[sqlite3.Connection] = []
        self._local = threading.local()
        self._lock: WriterLock | None = None
        self._writer: sqlite3.Connection | None = None
        self._is_closed = False
        self._file = MainFile(path)
        try:
            if write:
                self._lock = WriterLock(path.parent)
                # while a reader is open, SQLite does not checkpoint by itself when a writer closes
                self._idle.append(connect(path, "ro"))
                self._writer = connect(path, "rw")
            self._check_version()
            self.verify()
            if write:
                self.checkpoint()
        except BaseException:
            self._abandon()
            raise

    def close(self) -> None:
        """Close all connections; a writer checkpoints and lets the next one write."""
        try:
            if self._writer is not None:
                self.checkpoint(shorten=True)
        finally:
            self._abandon()

    def _abandon(self) -> None:
        self._is_closed = True
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        while self._idle:
            self._idle.pop().close()
        self._file.close()
        if self._lock is not None:
            self._lock.release()

    # reading

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """What this thread reads inside the block belongs to one commit. May be nested."""
        if self._writer is not None or getattr(self._local, "connection", None) is not None:
            yield
            return
        connection, idle = self._take(), self._idle
        try:
            with translated(self.path):
                connection.execute("BEGIN")
                connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()  # it begins
            self._local.connection = connection
            yield
        finally:
            self._local.connection = None
            self._give_back(connection, idle)

    def _take(self) -> sqlite3.Connection:
        if self._is_closed:
            raise ValueError(f"the knowledge base {self.path.parent.name} has been closed")
        if not self._file.is_at(self.path):  # it was repaired or made anew
            idle, self._idle = self._idle, []
            for connection in idle:
                connection.close()
            self._file.close()
            self._file = MainFile(self.path)
            self._check_version()
            self.verify()
        try:
            return self._idle.pop()
        except IndexError:
            return connect(self.path, "ro")

    def _give_back(self, connection: sqlite3.Connection, idle: list[sqlite3.Connection]) -> None:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        if self._is_closed or idle is not self._idle:
            connection.close()
        else:
            idle.append(connection)

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        connection = self._writer or getattr(self._local, "connection", None)
        if connection is None:
            with self.snapshot():
                return self.rows(sql, values)
        try:
            found: list[tuple[Any, ...]] = connection.execute(sql, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise in_our_words(error, self.path) from error
        return found

    def checked(self, table: str, where: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Whole rows, in the order of schema.COLUMNS, after their checksums: DamagedError."""
        found = self.rows(f"{select(table)} {where}", values)
        for crc, *row in found:
            if crc != row_crc(*row):
                raise DamagedError(self.path, f"row {row[0]} of {table} is not what was written")
        return [row[1:] for row in found]

    def one(self, table: str) -> tuple[Any, ...]:
        """The only row of `settings` or `state`, without its id."""
        rows = self.checked(table, "WHERE id = 1")
        if not rows:
            raise DamagedError(self.path, f"the row of {table} is gone")
        return rows[0][1:]

    # writing

    @contextmanager
    def transaction(self) -> Iterator[list[int]]:
        """All or nothing. Yields what `state` counts, to be changed in place: documents, chunks,
        files, the last document id, the last chunk id."""
        self._write("BEGIN IMMEDIATE")
        try:
            number, *counts = self.one("state")
            yield counts
            self._write(insert("state", "INSERT OR REPLACE"), sealed(1, number + 1, *counts))
            self._write("COMMIT")
        except BaseException:
            if self._writer is not None and self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            raise
        commits.note(self.path.parent, number + 1)
        log = self.path.with_name(self.path.name + LOG)
        if log.exists() and log.stat().st_size > CHECKPOINT_BYTES:
            self.checkpoint()

    def execute(self, sql: str, values: Sequence[Any] = ()) -> None:
        """One statement inside a transaction."""
        self._write(sql, values)

    def execute_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """One statement for many rows, inside a transaction."""
        assert self._writer is not None, "opened for reading"
        try:
            self._writer.executemany(sql, rows)
        except sqlite3.DatabaseError as error:
            raise in_our_words(error, self.path) from error

    def _write(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        assert self._writer is not None, "opened for reading"
        try:
            return self._writer.execute(sql, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise in_our_words(error, self.path) from error

    def checkpoint(self, shorten: bool = False) -> None:
        """Move the log into the file, as far as readers allow, and renew the seal; never waits.

        shorten  afterwards cut the log to nothing; it is in the file and sealed by then
        """
        self._write("PRAGMA wal_checkpoint(PASSIVE)")
        sums = seal.load(self.path)
        if sums is not None:
            sums.renew(self.path, self._file, committed_pages(self.path))
        else:
            seal.make(self.path, self._file, PAGE_SIZE)
        if shorten:
            self._write("PRAGMA busy_timeout=0")
            self._write("PRAGMA wal_checkpoint(TRUNCATE)")
            self._write(f"PRAGMA busy_timeout={int(BUSY_S * 1000)}")
        _whole[self.path] = self._file.stamp()

    # damage

    def verify(self, always: bool = False) -> None:
        """DamagedError unless everything is what was written: by the seal or, where that says
        otherwise, row by row. Done once per process and change of the file, or `always`."""
        noted = commits.noted(self.path.parent)  # before the snapshot, which may only be newer
        stamp = self._file.stamp()
        with self.snapshot():
            if always or noted is None or _whole.get(self.path) != stamp:
                n_pages = self.rows("PRAGMA page_count")[0][0]
                if noted is None or seal.broken_pages(self.path, self._file, n_pages, always) != []:
                    self._verify_rows()
                _whole[self.path] = stamp
            number = self.one("state")[0]
        if noted is not None and number < noted:
            raise DamagedError(
                self.path.with_name(self.path.name + LOG),
                f"{noted:,} commits were made, but only {number:,} are there",
            )

    def _verify_rows(self) -> None:
        logger.info("reading all of {}: it is not as its seal says", self.path)
        try:
            connection = connect(self.path, "rw")
        except OSError as error:  # a folder that cannot be written to cannot be looked through
            raise DamagedError(self.path, "it is not as its seal says") from error
        with closing(connection), translated(self.path):
            problem = next(checks.find(connection), None)
        if problem:
            raise DamagedError(self.path, problem)
        # whole: another program has written to the file, or the seal or the note was damaged
        try:
            lock = None if self._lock else WriterLock(self.path.parent)
        except BusyError:
            return  # its writer renews the seal
        try:
            seal.make(self.path, self._file, PAGE_SIZE)
            commits.note(self.path.parent, self.one("state")[0])
        finally:
            if lock:
                lock.release()

    def _check_version(self) -> None:
        version = self.rows("PRAGMA user_version")[0][0]
        kind = self.rows("PRAGMA application_id")[0][0]
        if (version, kind) == (VERSION, APPLICATION_ID):
            return
        if seal.broken_pages(self.path, self._file, 1):
            raise DamagedError(self.path, "its header is not what was written")
        raise ValueError(
            f"{self.path} has format {version}, this sparsechat reads {VERSION}: "
            + ("update sparsechat" if version > VERSION else "it was not made by sparsechat")
        )


def create(path: Path, settings: Sequence[Value]) -> None:
    """A new, empty file; `settings` are the columns of that table without the id. Whoever calls
    holds the base's lock. What was left by a create that was killed is replaced."""
    draft = path.with_name(f"{path.name}.new")
    create_tables(draft, settings)
    os.replace(draft, path)
    make_seal(path)
    commits.note(path.parent, 0)


def make_seal(path: Path) -> None:
    """Seal a file that is known to be whole."""
    file = MainFile(path)
    try:
        seal.make(path, file, PAGE_SIZE)
    finally:
        file.close()


def create_tables(path: Path, settings: Sequence[Value]) -> None:
    """The tables and the rows of settings and state, in a new file in WAL mode."""
    for leftover in (path, path.with_name(path.name + LOG)):
        leftover.unlink(missing_ok=True)
    with translated(path), closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA page_size={PAGE_SIZE}")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("BEGIN")
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={VERSION}")
        for statement in TABLES:
            connection.execute(statement)
        connection.execute(insert("settings"), sealed(1, *settings))
        connection.execute(insert("state"), sealed(1, 0, 0, 0, 0, 0, 0))
        connection.execute("COMMIT")
    # closing the last connection has moved the log into the file
