"""Whether the content of a database is what was written, row by row: slow and complete.

Everything that a search or a citation can show is covered: the structure of the file, the schema,
the full-text index against the texts, the checksum of every row, the spans of the chunks, the
counts. Bytes that none of these read are harmless by that.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator

from .connections import is_busy
from .schema import COLUMNS, TABLES, row_crc, select

Check = Callable[[sqlite3.Connection], Iterator[str]]


def find(connection: sqlite3.Connection) -> Iterator[str]:
    """What is wrong, a line each, as it is found. The connection must be able to write; nothing
    is changed. Beside a writer each check sees one commit; sqlite3.OperationalError where one
    cannot begin because others hold the file, which is no damage."""
    for check in (_structure, _schema, _full_text, _rows, _spans, _counts, _pending):
        try:
            # what asks for the write lock later than its snapshot is refused, not made to wait
            connection.execute("BEGIN IMMEDIATE" if check is _full_text else "BEGIN")
            yield from check(connection)
        except sqlite3.DatabaseError as error:
            if is_busy(error):
                raise
            yield f"{check.__name__[1:]}: {error}"
        finally:
            if connection.in_transaction:  # SQLite ends some that fail
                connection.execute("ROLLBACK")


def _structure(connection: sqlite3.Connection) -> Iterator[str]:
    for (line,) in connection.execute("PRAGMA integrity_check(1)").fetchall():
        if line != "ok":
            yield " ".join(line.replace("*** in database main ***", "").split())


def _schema(connection: sqlite3.Connection) -> Iterator[str]:
    rows = connection.execute(
        "SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL"
    ).fetchall()
    if {sql for name, sql in rows if not str(name).startswith("fts_")} != set(TABLES):
        yield "the tables are not those of this version"


def _full_text(connection: sqlite3.Connection) -> Iterator[str]:
    try:
        connection.execute("INSERT INTO fts (fts, rank) VALUES ('integrity-check', 1)")
    except sqlite3.DatabaseError as error:
        yield f"the full-text index does not belong to the texts ({error})"


def _rows(connection: sqlite3.Connection) -> Iterator[str]:
    for table in COLUMNS:
        for crc, *row in connection.execute(select(table)):
            if crc != row_crc(*row):
                yield f"row {row[0]} of {table} is not what was written"


def _spans(connection: sqlite3.Connection) -> Iterator[str]:
    documents = connection.execute("SELECT id, n_chunks, text FROM documents")
    for document_id, n_chunks, text in documents:
        chunks = connection.execute(
            "SELECT ord, start, stop, body FROM chunks WHERE document_id = ? ORDER BY ord",
            (document_id,),
        ).fetchall()
        spans = [text[start:stop] for _, start, stop, _ in chunks]
        if [row[0] for row in chunks] != list(range(n_chunks)) or spans != [r[3] for r in chunks]:
            yield f"the chunks of document {document_id} are not pieces of its text"


def _counts(connection: sqlite3.Connection) -> Iterator[str]:
    state = connection.execute(
        "SELECT n_documents, n_chunks, n_files, last_document_id, last_chunk_id FROM state"
    ).fetchall()
    found = connection.execute(
        """SELECT (SELECT count(*) FROM documents), (SELECT count(*) FROM chunks),
            (SELECT count(*) FROM files), (SELECT coalesce(max(id), 0) FROM documents),
            (SELECT coalesce(max(id), 0) FROM chunks), (SELECT count(*) FROM settings)"""
    ).fetchone()
    if len(state) != 1 or found[5] != 1:
        yield "the rows of settings or state are gone"
    elif state[0][:3] != found[:3] or state[0][3] < found[3] or state[0][4] < found[4]:
        yield f"the numbers of rows, {found[:5]}, are not those of the last commit, {state[0]}"


def _pending(connection: sqlite3.Connection) -> Iterator[str]:
    wanted = """SELECT c.id FROM chunks c WHERE NOT EXISTS (
        SELECT 1 FROM embeddings e JOIN encoders n ON n.id = e.encoder
        JOIN settings s ON s.encoder_id = n.encoder_id WHERE e.text_sha = c.text_sha)"""
    listed = "SELECT chunk_id FROM pending"
    for more, less in ((wanted, listed), (listed, wanted)):
        if connection.execute(f"SELECT 1 FROM ({more} EXCEPT {less}) LIMIT 1").fetchone():
            yield "the list of chunks without a vector is not right"
            return
