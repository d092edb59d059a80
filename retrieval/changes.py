"""Changing documents inside a transaction of the database.

A chunk of a changed document whose text is the same keeps its id and thereby its vector and its
place in the index. "The same" is what an encoder would be given: title, headings and text.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from .database import Database
from .schema import Value, insert, sealed
from .vectors import encoded_text, encoder_row

if TYPE_CHECKING:
    from data.chunks import Chunk
    from data.documents import Document

SHA_BYTES = 16
_DELETE_WORDS = "INSERT INTO fts (fts, rowid, title, body) VALUES ('delete', ?, ?, ?)"
_ADD_WORDS = "INSERT INTO fts (rowid, title, body) VALUES (?, ?, ?)"


@dataclass(frozen=True, slots=True)
class Change:
    """What became of a document: its chunks now, and how many of them are new."""

    kind: Literal["added", "updated", "unchanged"]
    document_id: int
    n_chunks: int
    n_new_chunks: int


def fingerprint(document: Document, chunker: str, n_sentences: int) -> bytes:
    """SHA-256 of all that decides about the chunks and the citations of a document."""
    parts: list[Any] = [chunker, n_sentences, document.title, dict(document.metadata)]
    parts += [[s.start, s.end, s.headings, s.page] for s in document.sections]
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode())
    digest.update(document.text.encode())
    return digest.digest()


def known(db: Database, uri: str) -> tuple[int, int, bytes] | None:
    """(document id, number of chunks, fingerprint) of a URI."""
    rows = db.rows("SELECT id, n_chunks, sha256 FROM documents WHERE uri = ?", [uri])
    return rows[0] if rows else None


def put_document(
    db: Database,
    counts: list[int],
    document: Document,
    chunks: Sequence[Chunk],
    *,
    sha256: bytes,
    file_id: int | None = None,
) -> Change:
    """Add the document, or put it in the place of the one with its URI. Inside a transaction."""
    present = known(db, document.uri)
    if present:
        document_id = present[0]
    else:
        counts[0] += 1
        counts[3] += 1
        document_id = counts[3]
    row = (document_id, file_id, document.uri, document.title, len(chunks), sha256)
    metadata = json.dumps(dict(document.metadata), ensure_ascii=False, sort_keys=True)
    db.execute(insert("documents", "INSERT OR REPLACE"), sealed(*row, metadata, document.text))
    n_new = _put_chunks(db, counts, document_id, document.title, chunks)
    return Change("updated" if present else "added", document_id, len(chunks), n_new)


def remove_documents(db: Database, counts: list[int], ids: Sequence[int]) -> None:
    """Remove documents with their chunks. Inside a transaction."""
    for document_id in ids:
        _remove_chunks(db, counts, _chunks_of(db, document_id))
        db.execute("DELETE FROM documents WHERE id = ?", [document_id])
        counts[0] -= 1


def _put_chunks(
    db: Database, counts: list[int], document_id: int, title: str, chunks: Sequence[Chunk]
) -> int:
    old: dict[bytes, list[tuple[Any, ...]]] = defaultdict(list)
    for row in reversed(_chunks_of(db, document_id)):
        old[row[1]].append(row)
    rows: list[tuple[Value, ...]] = []
    new: list[tuple[int, str, str, bytes]] = []
    for ordinal, chunk in enumerate(chunks):
        label = " — ".join(part for part in (title, *chunk.headings) if part)
        sha = hashlib.sha256(encoded_text(label, chunk.text).encode()).digest()[:SHA_BYTES]
        if old[sha]:
            chunk_id = old[sha].pop()[0]
        else:
            counts[4] += 1
            chunk_id = counts[4]
            new.append((chunk_id, label, chunk.text, sha))
        headings = json.dumps(chunk.headings, ensure_ascii=False)
        place = (chunk_id, document_id, ordinal, chunk.start, chunk.end, chunk.page)
        rows.append(sealed(*place, sha, headings, label, chunk.text))
    _remove_chunks(db, counts, [row for left in old.values() for row in left])
    db.execute_many(insert("chunks", "INSERT OR REPLACE"), rows)
    db.execute_many(_ADD_WORDS, (row[:3] for row in new))
    counts[1] += len(new)
    encoder = encoder_row(db)[0]
    db.execute_many(
        """INSERT INTO pending SELECT ?1 WHERE NOT EXISTS (
        SELECT 1 FROM embeddings WHERE text_sha = ?2 AND encoder = ?3)""",
        ((row[0], row[3], encoder) for row in new),
    )
    return len(new)


def _chunks_of(db: Database, document_id: int) -> list[tuple[Any, ...]]:
    return db.rows(
        "SELECT id, text_sha, title, body FROM chunks WHERE document_id = ? ORDER BY ord",
        [document_id],
    )


def _remove_chunks(db: Database, counts: list[int], rows: Sequence[tuple[Any, ...]]) -> None:
    ids = [(row[0],) for row in rows]
    db.execute_many(_DELETE_WORDS, ((row[0], row[2], row[3]) for row in rows))
    db.execute_many("DELETE FROM chunks WHERE id = ?", ids)
    db.execute_many("DELETE FROM pending WHERE chunk_id = ?", ids)
    db.execute_many("INSERT INTO tombstones VALUES (?)", ids)
    counts[1] -= len(ids)
