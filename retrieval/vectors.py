"""Vectors in the database: float16, keyed by the hash of the text that was encoded and encoder.

A text that returns, or stands in two documents, is encoded once. `pending` lists the chunks whose
text has no vector of the base's encoder; they are served in the order of chunk ids, so that all
chunks below the first pending one have vectors: that is what a generation is built from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from .damage import DamagedError
from .database import Database
from .schema import insert, row_crc, sealed
from .texts import Ids, id_list

Matrix = NDArray[np.float32]
BLOCK = 4096  # vectors read at once
_STORED = np.dtype("<f2")


def encoder_row(db: Database) -> tuple[int, int]:
    """(number in `encoders`, dimension) of the base's encoder; (0, 0) while it has none."""
    encoder_id = db.one("settings")[5]
    rows = db.checked("encoders", "WHERE encoder_id = ?", [encoder_id])
    return (rows[0][0], rows[0][2]) if rows else (0, 0)


def vectors(db: Database, ids: Sequence[int] | Ids) -> Matrix:
    """See Store.vectors."""
    encoder, dimension = encoder_row(db)
    rows = db.rows(
        _SELECT + "WHERE c.id IN (SELECT value FROM json_each(?2))", [encoder, id_list(ids)]
    )
    found = dict(zip((row[0] for row in rows), _matrix(db, rows, dimension), strict=True))
    out = np.full((len(ids), dimension), np.nan, np.float32)
    for i, chunk_id in enumerate(map(int, ids)):
        if chunk_id in found:
            out[i] = found[chunk_id]
    return out


def vectors_after(
    db: Database, chunk_id: int | None, until: int | None = None
) -> Iterator[tuple[Ids, Matrix]]:
    """See Store.vectors_after."""
    encoder, dimension = encoder_row(db)
    last = chunk_id or 0
    while True:
        rows = db.rows(
            _SELECT + "WHERE c.id > ?2 AND c.id <= ?3 ORDER BY c.id LIMIT ?4",
            [encoder, last, 2**62 if until is None else until, BLOCK],
        )
        if not rows:
            return
        last = rows[-1][0]
        yield np.array([row[0] for row in rows], np.int64), _matrix(db, rows, dimension)


def unembedded(db: Database, limit: int) -> list[tuple[bytes, str]]:
    """See Store.unembedded."""
    rows = db.rows(
        """SELECT c.text_sha, c.title, c.body FROM pending p JOIN chunks c ON c.id = p.chunk_id
        ORDER BY p.chunk_id LIMIT ?""",
        [limit],
    )
    return list({sha: (sha, encoded_text(title, body)) for sha, title, body in rows}.values())


def encoded_text(title: str, body: str) -> str:
    """What an encoder is given for a chunk; `title` is the document's with the headings."""
    return f"{title}: {body}" if title else body


def put(db: Database, shas: Sequence[bytes], matrix: Matrix) -> None:
    """See Store.put_vectors."""
    encoder, dimension = encoder_row(db)
    if not encoder or matrix.shape != (len(shas), dimension):
        raise ValueError(
            f"vectors of shape {matrix.shape} for {len(shas):,} texts do not fit a base whose "
            f"encoder gives {dimension} numbers"
        )
    if not np.isfinite(matrix).all():
        raise ValueError("the encoder gave vectors that are not finite numbers")
    blobs = [row.tobytes() for row in matrix.astype(_STORED)]
    with db.transaction():
        (first,) = db.rows("SELECT coalesce(max(id), 0) + 1 FROM embeddings")[0]
        rows = zip(range(first, first + len(shas)), repeat(encoder), shas, blobs, strict=False)
        db.execute_many(insert("embeddings", "INSERT OR IGNORE"), (sealed(*row) for row in rows))
        db.execute_many(
            """DELETE FROM pending WHERE chunk_id IN (SELECT id FROM chunks WHERE text_sha = ?)""",
            ([sha] for sha in shas),
        )


def use_encoder(db: Database, encoder_id: str, dimension: int, name: str | None) -> None:
    """See Store.use_encoder."""
    rows = db.checked("encoders", "WHERE encoder_id = ?", [encoder_id])
    if rows and rows[0][2] != dimension:
        raise ValueError(
            f"the encoder {encoder_id} gives {dimension} numbers, its stored vectors have "
            f"{rows[0][2]}"
        )
    settings = list(db.one("settings"))
    if settings[5:7] == [encoder_id, dimension] and name in (None, settings[4]):
        return
    with db.transaction():
        if not rows:
            (number,) = db.rows("SELECT coalesce(max(id), 0) + 1 FROM encoders")[0]
            db.execute(insert("encoders"), sealed(number, encoder_id, dimension))
        if settings[5] != encoder_id:
            (number,) = db.rows("SELECT id FROM encoders WHERE encoder_id = ?", [encoder_id])[0]
            db.execute("DELETE FROM pending")
            db.execute(
                """INSERT INTO pending SELECT id FROM chunks c WHERE NOT EXISTS (
                SELECT 1 FROM embeddings e WHERE e.text_sha = c.text_sha AND e.encoder = ?)""",
                [number],
            )
        settings[4:7] = [name or settings[4], encoder_id, dimension]
        db.execute(insert("settings", "INSERT OR REPLACE"), sealed(1, *settings))


_SELECT = """SELECT c.id, e.crc, e.id, e.encoder, e.text_sha, e.vector
    FROM chunks c JOIN embeddings e ON e.text_sha = c.text_sha AND e.encoder = ?1 """


def _matrix(db: Database, rows: Sequence[tuple[int, ...]], dimension: int) -> Matrix:
    for _, crc, *row in rows:
        if crc != row_crc(*row):
            raise DamagedError(db.path, f"row {row[0]} of embeddings is not what was written")
    raw = b"".join(row[5] for row in rows)  # type: ignore[misc]
    matrix = np.frombuffer(raw, _STORED).reshape(len(rows), dimension).astype(np.float32)
    norms = np.linalg.norm(matrix, axis=1, keepdims=True)
    matrix /= np.where(norms == 0, 1, norms)
    return matrix
