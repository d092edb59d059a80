"""Reading documents and chunks, by id, by place and by words. Functions of a Database."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .database import Database
from .rows import StoredChunk, StoredDocument

Ids = NDArray[np.int64]

TITLE_WEIGHT = 2.0
_AT_ONCE = 5_000  # ids per query


def id_list(ids: Sequence[int] | Ids) -> str:
    """For `IN (SELECT value FROM json_each(?))`, which takes any number of ids."""
    return json.dumps(ids.tolist() if isinstance(ids, np.ndarray) else [int(i) for i in ids])


def chunks(db: Database, ids: Sequence[int] | Ids) -> list[StoredChunk]:
    """See Store.chunks."""
    where = "WHERE id IN (SELECT value FROM json_each(?))"
    found = {row[0]: _chunk(row) for row in db.checked("chunks", where, [id_list(ids)])}
    return [found[i] for i in map(int, ids) if i in found]


def neighbours(db: Database, chunk_id: int, w: int) -> list[StoredChunk]:
    """See Store.neighbours."""
    where = """WHERE document_id = (SELECT document_id FROM chunks WHERE id = ?1)
        AND abs(ord - (SELECT ord FROM chunks WHERE id = ?1)) <= ?2 ORDER BY ord"""
    return [_chunk(row) for row in db.checked("chunks", where, [int(chunk_id), int(w)])]


def documents(db: Database, ids: Sequence[int] | Ids) -> list[StoredDocument]:
    """See Store.documents."""
    where = "WHERE id IN (SELECT value FROM json_each(?))"
    found = {row[0]: _document(row) for row in db.checked("documents", where, [id_list(ids)])}
    return [found[i] for i in map(int, ids) if i in found]


def document_of(db: Database, uri: str) -> StoredDocument | None:
    """The document with this URI."""
    rows = db.checked("documents", "WHERE uri = ?", [uri])
    return _document(rows[0]) if rows else None


def revision_of(db: Database, uri: str) -> str | None:
    """See KnowledgeBase.revision_of; the text is not read."""
    rows = db.rows("SELECT metadata FROM documents WHERE uri = ?", [uri])
    return json.loads(rows[0][0]).get("revision") if rows else None


def lexical(
    db: Database, match: str, k: int, allowed: Ids | None
) -> tuple[Ids, NDArray[np.float32]]:
    """See Store.lexical."""
    values: list[Any] = [match, f"bm25({TITLE_WEIGHT}, 1.0)"]
    among = ""
    if allowed is not None:
        among, values = "AND rowid IN (SELECT value FROM json_each(?))", [*values, id_list(allowed)]
    try:
        rows = db.rows(
            f"SELECT rowid, -rank FROM fts WHERE fts MATCH ? AND rank MATCH ? {among} "
            "ORDER BY rank LIMIT ?",
            [*values, k],
        )
    except sqlite3.OperationalError as error:
        raise ValueError(f"{match!r} is not a full-text query: {error}") from error
    ids = np.array([row[0] for row in rows], np.int64)
    return ids, np.array([row[1] for row in rows], np.float32)


def allowed(db: Database, filter: str | Mapping[str, str]) -> Ids:
    """See Store.allowed."""
    globs = {"uri": filter} if isinstance(filter, str) else filter
    conditions, values = [], []
    for key, glob in globs.items():
        if key in ("uri", "title"):
            conditions.append(f"d.{key} GLOB ?")
        else:
            conditions.append("json_extract(d.metadata, ?) GLOB ?")
            values.append("$." + json.dumps(key, ensure_ascii=False))
        values.append(glob)
    rows = db.rows(
        "SELECT c.id FROM documents d JOIN chunks c ON c.document_id = d.id "
        f"WHERE {' AND '.join(conditions) or '1'} ORDER BY c.id",
        values,
    )
    return np.array([row[0] for row in rows], np.int64)


def _chunk(row: tuple[Any, ...]) -> StoredChunk:
    chunk_id, document_id, ordinal, start, stop, page, _, headings, title, body = row
    path = tuple(json.loads(headings))
    return StoredChunk(chunk_id, document_id, ordinal, start, stop, page, path, body, title)


def _document(row: tuple[Any, ...]) -> StoredDocument:
    document_id, _, uri, title, _, _, metadata, text = row
    return StoredDocument(document_id, uri, title, text, json.loads(metadata))
