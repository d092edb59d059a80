"""A new database from what can be read of a damaged one; the damaged files are set aside.

A document is taken over when its row and all its chunks have their checksums. Files whose
documents are lost are noted as unread, so that the next sync reads them again.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from loguru import logger

from . import commits, database, seal
from .connections import connect
from .damage import set_aside
from .main_file import MainFile
from .schema import COLUMNS, insert, row_crc, sealed, select
from .write_ahead_log import SUFFIX as LOG
from .writer_lock import WriterLock

# a new file that is complete and only has to take its place
DONE = ".salvaged"
_BESIDE = (LOG, "-shm", seal.SUFFIX)
_FAILURES_TO_GIVE_UP = 64


@dataclass(frozen=True, slots=True)
class Salvage:
    """Documents taken over and lost (None: nobody can say), and where the old files are."""

    n_documents: int
    n_lost: int | None
    set_aside: tuple[Path, ...]


def salvage(folder: Path) -> Salvage:
    """Replace the database in `folder`. BusyError while another writes."""
    path = folder / database.FILE
    lock = WriterLock(folder)
    try:
        draft = path.with_name(f"{path.name}.draft")
        draft.unlink(missing_ok=True)
        with _openable(path) as source:
            n_documents, n_lost = _copy(source, draft)
        os.replace(draft, path.with_name(path.name + DONE))
        moved = set_aside(path, *(path.with_name(path.name + suffix) for suffix in _BESIDE))
        finish(folder)
        return Salvage(n_documents, n_lost, tuple(moved))
    finally:
        lock.release()


def finish(folder: Path) -> bool:
    """Put a complete new file in its place, after a kill too. The caller holds the lock."""
    path = folder / database.FILE
    done = path.with_name(path.name + DONE)
    if path.exists() or not done.exists():
        return False
    set_aside(*(path.with_name(path.name + suffix) for suffix in _BESIDE))
    os.replace(done, path)
    database.make_seal(path)
    with closing(connect(path, "ro")) as connection:
        commits.note(folder, connection.execute("SELECT commit_number FROM state").fetchone()[0])
    return True


@contextmanager
def _openable(path: Path) -> Iterator[Path]:
    """The file itself; where its first page is damaged or its end is missing, a copy with the
    first page as sealed and zeros at the end, of which SQLite reads what there is."""
    sealed_as = seal.load(path)
    if sealed_as is None or not path.exists():
        yield path
        return
    file = MainFile(path)
    try:
        is_cut = file.stamp()[0] < sealed_as.stamp[0]
        if not is_cut and file.read(sealed_as.page_size, 0) == sealed_as.first:
            yield path
            return
        with TemporaryDirectory(dir=path.parent, prefix="salvage-") as name:
            copy = Path(name) / path.name
            file.copy_to(copy)
            with suppress(FileNotFoundError):
                shutil.copyfile(path.with_name(path.name + LOG), copy.with_name(path.name + LOG))
            with copy.open("rb+") as written:
                written.write(sealed_as.first)
                written.truncate(max(sealed_as.stamp[0], copy.stat().st_size))
            yield copy
    finally:
        file.close()


def _copy(path: Path, draft: Path) -> tuple[int, int | None]:
    """(documents taken over, documents lost)."""
    rows = {table: list(_readable(path, table)) for table in ("settings", "state", "encoders")}
    database.create_tables(draft, _settings(rows["settings"], rows["encoders"]))
    n_known = rows["state"][0][2] if rows["state"] else None
    number = max(rows["state"][0][1] if rows["state"] else 0, commits.noted(draft.parent) or 0)
    with closing(sqlite3.connect(draft, isolation_level=None)) as new:
        new.execute("BEGIN")
        for table in ("roots", "encoders", "embeddings"):
            _insert(new, table, _readable(path, table))
        n_documents = _copy_documents(path, new)
        files = list(_readable(path, "files"))
        if n_documents != n_known:
            files = [f if f[6] == "deleted" else (*f[:3], b"", 0, 0, "reading") for f in files]
        _insert(new, "files", files)
        new.execute("INSERT INTO fts (fts) VALUES ('rebuild')")
        new.execute(
            """INSERT INTO pending SELECT c.id FROM chunks c WHERE NOT EXISTS (
            SELECT 1 FROM embeddings e JOIN encoders n ON n.id = e.encoder
            JOIN settings s ON s.encoder_id = n.encoder_id WHERE e.text_sha = c.text_sha)"""
        )
        counts = new.execute(
            """SELECT (SELECT count(*) FROM documents), (SELECT count(*) FROM chunks),
            (SELECT count(*) FROM files), (SELECT coalesce(max(id), 0) FROM documents),
            (SELECT coalesce(max(id), 0) FROM chunks)"""
        ).fetchone()
        new.execute(insert("state", "INSERT OR REPLACE"), sealed(1, number + 1, *counts))
        new.execute("COMMIT")
    logger.info("{} documents of {} were taken over", n_documents, path)
    return n_documents, None if n_known is None else max(n_known - n_documents, 0)


def _settings(rows: list[tuple[Any, ...]], encoders: list[tuple[Any, ...]]) -> tuple[Any, ...]:
    """The settings, with a new identity: indexes of the old database are not for this one."""
    from data.chunks import CHUNKER

    if rows:
        return (uuid.uuid4().hex, *rows[0][2:])
    now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    encoder_id, dimension = encoders[-1][1:] if encoders else (None, None)
    return uuid.uuid4().hex, now, 3, CHUNKER, "minilm", encoder_id, dimension, "faiss"


def _copy_documents(path: Path, new: sqlite3.Connection) -> int:
    """Take over what is readable, then drop the documents that are not whole."""
    n = _insert(new, "documents", _readable(path, "documents"))
    _insert(new, "chunks", _readable(path, "chunks"))
    for document_id in list(_incomplete(new)):
        new.execute("DELETE FROM documents WHERE id = ?", [document_id])
        n -= 1
    new.execute("DELETE FROM chunks WHERE document_id NOT IN (SELECT id FROM documents)")
    return n


def _incomplete(new: sqlite3.Connection) -> Iterator[int]:
    for document_id, n_chunks, text in new.execute("SELECT id, n_chunks, text FROM documents"):
        chunks = new.execute(
            "SELECT ord, start, stop, body FROM chunks WHERE document_id = ? ORDER BY ord",
            [document_id],
        ).fetchall()
        spans = [(i, text[start:stop]) for i, (_, start, stop, _) in enumerate(chunks)]
        if len(chunks) != n_chunks or spans != [(row[0], row[3]) for row in chunks]:
            yield document_id


def _insert(new: sqlite3.Connection, table: str, rows: Any) -> int:
    statement = insert(table, "INSERT OR IGNORE")
    return sum(new.execute(statement, sealed(*row)).rowcount for row in rows)


def _readable(path: Path, table: str) -> Iterator[tuple[Any, ...]]:
    """The rows whose checksum is right, by id; damaged pages are stepped over."""
    last, step, n_failures = 0, 1, 0
    try:
        connection = connect(path, "ro")
    except OSError:
        return
    with closing(connection):
        while n_failures < _FAILURES_TO_GIVE_UP and last < 1 << 62:
            try:
                rows = connection.execute(f"{select(table)} WHERE id >= ? ORDER BY id", [last])
                for crc, *row in rows:
                    if len(row) == len(COLUMNS[table]) and crc == row_crc(*row):
                        last, step, n_failures = row[0] + 1, 1, 0
                        yield tuple(row)
                return
            except (sqlite3.DatabaseError, TypeError):
                last, step, n_failures = last + step, 2 * step, n_failures + 1
