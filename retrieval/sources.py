"""Where documents came from: folders and files that were added, and every file in them.

A file that has size and time as noted is taken as unchanged; otherwise its hash decides. A time
that was young when it was noted proves nothing (the file can change again within the clock's
tick), so it is noted as 0 and the hash decides the next time.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from .database import Database
from .schema import insert, sealed

YOUNG_S = 2.0  # FAT keeps times in steps of two seconds

FileState = Literal["reading", "read", "deleted"]


@dataclass(frozen=True, slots=True)
class Root:
    """A folder or file that was added, with what was to be taken from it."""

    root_id: int
    path: Path
    globs: tuple[str, ...]
    exclude: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class File:
    """A file as it was read. "reading": not to its end; "deleted": its documents were deleted from
    the base, and only adding it again brings them back."""

    file_id: int
    root_id: int
    path: str
    sha256: bytes
    mtime_ns: int
    size: int
    state: FileState


def absolute(path: str | Path) -> Path:
    """The path that documents are known by: absolute, symbolic links as they are."""
    result = Path(os.path.abspath(os.path.expanduser(path)))
    if not result.exists():
        raise FileNotFoundError(f"there is no file or folder {result}; nothing was added")
    return result


def roots(db: Database) -> list[Root]:
    """In the order of adding."""
    return [
        Root(root_id, Path(path), tuple(json.loads(globs)), tuple(json.loads(exclude)))
        for root_id, path, globs, exclude in db.checked("roots", "ORDER BY id")
    ]


def put_root(db: Database, path: Path, globs: Sequence[str], exclude: Sequence[str]) -> Root:
    """The root for these, new or known. The same folder may be added with other globs beside."""
    wanted = Root(0, path, tuple(globs), tuple(exclude))
    known = roots(db)
    for root in known:
        if (root.path, root.globs, root.exclude) == (wanted.path, wanted.globs, wanted.exclude):
            return root
    root = Root(max([0, *(r.root_id for r in known)]) + 1, *_fields(wanted))
    with db.transaction():
        lists = json.dumps(root.globs), json.dumps(root.exclude)
        db.execute(insert("roots"), sealed(root.root_id, path.as_posix(), *lists))
    return root


def _fields(root: Root) -> tuple[Path, tuple[str, ...], tuple[str, ...]]:
    return root.path, root.globs, root.exclude


def known_files(db: Database) -> dict[str, File]:
    """By path."""
    return {row[2]: File(*row) for row in db.checked("files", "")}


def put_file(db: Database, counts: list[int], file: File) -> None:
    """Add or replace a file. Inside a transaction."""
    if not db.rows("SELECT 1 FROM files WHERE id = ?", [file.file_id]):
        counts[2] += 1
    values = sealed(
        file.file_id, file.root_id, file.path, file.sha256, file.mtime_ns, file.size, file.state
    )
    db.execute(insert("files", "INSERT OR REPLACE"), values)


def forget_file(db: Database, counts: list[int], file_id: int) -> None:
    """Remove a file without documents. Inside a transaction."""
    counts[2] -= 1
    db.execute("DELETE FROM files WHERE id = ?", [file_id])


def next_file_id(db: Database) -> int:
    """Above all present ones."""
    return int(db.rows("SELECT coalesce(max(id), 0) + 1 FROM files")[0][0])


def mark_deleted(db: Database, file_ids: set[int | None]) -> None:
    """Keep files of which no document is left from being read again. Inside a transaction."""
    for file in known_files(db).values():
        if file.file_id in file_ids and not documents_of(db, file.file_id):
            put_file(db, [0] * 5, replace(file, state="deleted"))


def documents_by_file(db: Database) -> Mapping[int | None, int]:
    """How many documents each file gave; None stands for those that came from no file."""
    return dict(db.rows("SELECT file_id, count(*) FROM documents GROUP BY file_id"))


def documents_of(db: Database, file_id: int) -> list[tuple[int, str]]:
    """(document id, URI) of a file."""
    return db.rows("SELECT id, uri FROM documents WHERE file_id = ?", [file_id])


def noted_time(stat: os.stat_result) -> int:
    """The mtime_ns to note for a file that is about to be read."""
    return stat.st_mtime_ns if time.time() - stat.st_mtime > YOUNG_S else 0


def matching(db: Database, patterns: Sequence[str]) -> Iterator[tuple[int, int | None, str]]:
    """(document id, file id, URI) of the documents that one of the patterns names: a glob over
    URIs, a path (from the working folder), a file with all its rows, or a folder."""
    seen = set()
    for pattern in patterns:
        path = Path(os.path.abspath(pattern)).as_posix()
        rows = db.rows(
            """SELECT d.id, d.file_id, d.uri FROM documents d LEFT JOIN files f ON f.id = d.file_id
            WHERE d.uri IN (?1, ?2) OR f.path = ?2 OR substr(f.path, 1, length(?2) + 1) = ?2 || '/'
            OR d.uri GLOB ?1 OR d.uri GLOB ?2 ORDER BY d.id""",
            [pattern, path],
        )
        for row in rows:
            if row[0] not in seen:
                seen.add(row[0])
                yield row[0], row[1], row[2]
