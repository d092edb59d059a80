"""One SQLite file is the truth of a knowledge base; this is how it is read, and vectors stored."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

import numpy as np

from data.files import private_folder

from . import backends, bases, commits, database, texts, vectors
from .damage import DamagedError
from .database import Database
from .rows import Settings, State, StoredChunk, StoredDocument
from .schema import insert, sealed
from .texts import Ids
from .vectors import Matrix
from .writer_lock import WriterLock


@dataclass(frozen=True, slots=True)
class Delta:
    """Vectors as they were at `state`; key: base, encoder, the id that they are behind."""

    key: tuple[str, str | None, int]
    state: State
    ids: Ids
    matrix: Matrix


class Store:
    """Reads, and opened with write=True writes, `knowledge.sqlite` in a base's folder.

    Any thread may read from a store that is open for reading; one that is open for writing is for
    one thread. Rows are compared with their checksums when they are read: DamagedError. Changes
    of documents are in retrieval/changes.py, of sources in retrieval/sources.py; `db` is theirs.
    """

    def __init__(self, db: Database) -> None:
        self.db = db
        self._delta: Delta | None = None
        self._guard = threading.Lock()

    @classmethod
    def create(cls, folder: Path, *, n_sentences: int = 3, encoder: str | None = "minilm") -> Store:
        """A new, empty base, open for writing. FileExistsError, BusyError."""
        from data.chunks import CHUNKER

        path = private_folder(folder) / database.FILE
        lock = WriterLock(folder)
        try:
            if path.exists():
                raise FileExistsError(f"there is a knowledge base in {folder} already")
            if other := bases.other_files(folder):
                raise FileExistsError(
                    f"{folder} holds {other[0].name} and is not empty; a knowledge base needs a "
                    "folder of its own"
                )
            created = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
            base_id = uuid.uuid4().hex
            settings = (base_id, created, n_sentences, CHUNKER, encoder, None, None, "faiss")
            database.create(path, settings)
        finally:
            lock.release()
        return cls(Database(path, write=True))

    @classmethod
    def open(cls, folder: Path, *, write: bool = False) -> Store:
        """An existing base: FileNotFoundError, BusyError, DamagedError, ValueError (a format of
        another version)."""
        path = folder / database.FILE
        if not path.is_file():
            _finish_salvage(folder)
        if not path.is_file() and (folder / commits.FILE).exists():
            raise DamagedError(path, "it is gone")
        if not path.is_file():
            raise FileNotFoundError(f"there is no knowledge base in {folder}: no {database.FILE}")
        return cls(Database(path, write))

    def close(self) -> None:
        """Close all connections; a writer lets the next one write."""
        self.db.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @contextmanager
    def snapshot(self) -> Iterator[State]:
        """Everything that this thread reads inside the block belongs to one commit."""
        with self.db.snapshot():
            yield self.state()

    def settings(self) -> Settings:
        """What the base was made with and whose vectors it holds."""
        return Settings(*self.db.one("settings"))

    def state(self) -> State:
        """Where the base stands."""
        with self.db.snapshot():
            commit, n_documents, n_chunks, _, _, last_chunk_id = self.db.one("state")
            n_pending, first = self.db.rows("SELECT count(*), min(chunk_id) FROM pending")[0]
        complete_to = last_chunk_id if first is None else first - 1
        return State(commit, n_documents, n_chunks, n_pending, last_chunk_id, complete_to)

    # texts

    def lexical(self, match: str, k: int, allowed: Ids | None = None) -> tuple[Ids, Matrix]:
        """The k best chunks for an FTS5 MATCH string: ids (n,), BM25 (n,), bigger is better.
        The title (with the headings) weighs 2, the text 1. ValueError: not a MATCH string."""
        return texts.lexical(self.db, match, k, allowed)

    def chunks(self, ids: Sequence[int] | Ids) -> list[StoredChunk]:
        """In the order of `ids`; those that are gone are left out."""
        return texts.chunks(self.db, ids)

    def documents(self, ids: Sequence[int] | Ids) -> list[StoredDocument]:
        """In the order of `ids` (document ids); those that are gone are left out."""
        return texts.documents(self.db, ids)

    def neighbours(self, chunk_id: int, w: int) -> list[StoredChunk]:
        """The chunk and up to `w` on each side of it in the same document, in order."""
        return texts.neighbours(self.db, chunk_id, w)

    def allowed(self, filter: str | Mapping[str, str]) -> Ids:
        """Sorted ids of the chunks that `filter` lets through. A string is a glob over document
        URIs; a mapping has globs by "uri", "title" or a metadata key, and all must match."""
        return texts.allowed(self.db, filter)

    # vectors

    def vectors(self, ids: Sequence[int] | Ids) -> Matrix:
        """(n, d) float32, rows of length 1; NaN where there is no vector yet. d is
        settings().dimension, 0 while there is none."""
        return vectors.vectors(self.db, ids)

    def vectors_after(
        self, chunk_id: int | None, until: int | None = None
    ) -> Iterator[tuple[Ids, Matrix]]:
        """Blocks of (ids (n,), vectors (n, d)) of the chunks with chunk_id < id <= until that
        have vectors, in the order of ids. Take a snapshot around it."""
        return vectors.vectors_after(self.db, chunk_id, until)

    def delta(self, after: int) -> tuple[Ids, Matrix]:
        """All vectors of chunks with id > after as one matrix: what a generation does not hold.
        Kept until the next commit, which costs reading what is new. Never change it."""
        with self.snapshot() as state, self._guard:
            settings = self.settings()
            key = (settings.base_id, settings.encoder_id, after)
            known = self._delta
            if known is None or known.key != key or known.state.commit > state.commit:
                empty = np.empty((0, settings.dimension or 0), np.float32)
                known = Delta(key, State(0, 0, 0, 0, 0, after), np.empty(0, np.int64), empty)
            if known.state.commit < state.commit:
                known = self._delta = self._newer(known, state)
            return known.ids, known.matrix

    def _newer(self, known: Delta, state: State) -> Delta:
        """Chunks up to `complete_to` had their vectors: they are the same, or deleted. (A build
        forgets which were deleted, but then the generation is another, and `after` with it.)"""
        is_kept = known.ids <= known.state.complete_to
        is_kept &= ~np.isin(known.ids, self.deleted())
        blocks = list(self.vectors_after(max(known.key[2], known.state.complete_to)))
        ids = np.concatenate([known.ids[is_kept], *(block[0] for block in blocks)])
        matrix = np.concatenate([known.matrix[is_kept], *(block[1] for block in blocks)])
        return Delta(known.key, state, ids, matrix)

    def deleted(self) -> Ids:
        """Ids that a generation may still hold although their chunks are gone: `excluded`."""
        rows = self.db.rows("SELECT chunk_id FROM tombstones ORDER BY chunk_id")
        return np.array([row[0] for row in rows], np.int64)

    def unembedded(self, limit: int) -> list[tuple[bytes, str]]:
        """(text_sha, text to encode) of the first `limit` chunks without a vector, by chunk id;
        a text that repeats comes once."""
        return vectors.unembedded(self.db, limit)

    def put_vectors(self, shas: Sequence[bytes], matrix: Matrix) -> None:
        """Store vectors of what `unembedded` gave; commits. matrix (n, d), rows of length 1."""
        vectors.put(self.db, shas, matrix)

    def use_encoder(self, encoder_id: str, dimension: int, name: str | None = None) -> None:
        """From now on the base's vectors are this encoder's; commits. Others' are kept."""
        vectors.use_encoder(self.db, encoder_id, dimension, name)

    def use_backend(self, name: str, url: str | None = None) -> None:
        """From the next build on the index is this backend's (retrieval/backends/), on the server
        at `url` if it has one; commits. ValueError."""
        settings = replace(self.settings(), backend=backends.spec_of(name, url))
        with self.db.transaction():
            self.db.execute(insert("settings", "INSERT OR REPLACE"), sealed(1, *astuple(settings)))


def _finish_salvage(folder: Path) -> None:
    from . import salvage

    if not folder.is_dir():
        return
    lock = WriterLock(folder)
    try:
        salvage.finish(folder)
    finally:
        lock.release()
