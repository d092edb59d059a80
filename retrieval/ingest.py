"""Bringing documents into the database: what is new, what changed, what is gone.

Work is committed in batches of a few hundred documents or a second, so that a kill costs little,
readers see documents while others are still being read, and the lock on the file is short.
"""

from __future__ import annotations

import os
import stat as stats
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from loguru import logger

from . import changes, sources
from .reports import Report
from .schema import insert, sealed
from .sources import File, Root
from .store import Store

if TYPE_CHECKING:
    from data.documents import Document

OnProgress = Callable[[int, int | None, str], None]  # done, total (None: unknown), what

BATCH_DOCUMENTS = 300
BATCH_CHARS = 8_000_000
BATCH_S = 1.0
_Step = Callable[[list[int]], None]  # a change, given the counts of the transaction


class Cancel(Protocol):
    """threading.Event does."""

    def is_set(self) -> bool:
        """Whether to stop."""
        ...


class Ingest:
    """One run over documents or files of a store that is open for writing.

    After a cancel everything that was read is committed, and `report.cancelled` says so.
    """

    def __init__(
        self, store: Store, on_progress: OnProgress | None = None, cancel: Cancel | None = None
    ) -> None:
        from data.chunks import CHUNKER

        self.report = Report()
        self._db, self._settings = store.db, replace(store.settings(), chunker=CHUNKER)
        self._cuts_anew = store.settings().chunker != CHUNKER
        self._next_file_id = sources.next_file_id(store.db)
        self._tell = on_progress or (lambda done, total, what: None)
        self._cancel = cancel
        self._steps: list[_Step] = []
        self._uris: set[str] = set()
        self._n_chars, self._since = 0, time.monotonic()

    def documents(self, documents: Iterable[Document]) -> Report:
        """Add documents that come from no file, or update them. A DocumentError of what gives
        them is raised after all that came before it is committed."""
        from data.documents import DocumentError

        try:
            for done, document in enumerate(documents):
                self._tell(done, None, document.title or document.uri)
                if self._stops():
                    break
                self._put(document, None)
        except DocumentError:
            self._commit()
            raise
        self._commit()
        return self._counted()

    def files(self, roots: Sequence[Root], *, adds: bool) -> Report:
        """Read what is new or changed under `roots`, remove what is gone from them.

        adds  also bring back what had been deleted from the base by hand
        """
        known = sources.known_files(self._db)
        found: dict[str, int] = {}
        absent = {root.root_id for root in roots if not self._list(root, found, known)}
        n_documents = sources.documents_by_file(self._db)
        for done, (path, root_id) in enumerate(found.items()):
            self._tell(done, len(found), path)
            if self._stops():
                break
            file = known.get(path)
            if file and file.state == "deleted" and not adds:
                continue
            if not self._file(path, root_id, file):
                self.report.unchanged += n_documents.get(file.file_id, 0) if file else 0
        if not self.report.cancelled:
            here = {root.root_id for root in roots} - absent
            self._remove(f for p, f in known.items() if f.root_id in here and p not in found)
            if self._cuts_anew and not adds:  # a sync: all files have been read
                self._step(self._note_chunker)
            self._tell(len(found), len(found), "done")
        self._commit()
        return self._counted()

    def _list(self, root: Root, found: dict[str, int], known: Mapping[str, File]) -> bool:
        """Note the files of a root; False when the root itself is not there."""
        from data.readers import Skipped, files_in

        if root.path.is_file():
            found.setdefault(root.path.as_posix(), root.root_id)
            return True
        if not root.path.is_dir():
            # a single file is gone when its folder is there; a folder may be on a disk that is not
            if root.path.as_posix() in known and root.path.parent.is_dir():
                return True
            reason = "it is not there; its documents stay until `sparsechat kb delete` removes them"
            self.report.skipped.append((str(root.path), reason))
            return False
        for entry in files_in(root.path, root.globs, root.exclude):
            if isinstance(entry, Skipped):
                self.report.skipped.append((str(entry.path), entry.reason))
            else:
                found.setdefault(Path(os.path.abspath(entry)).as_posix(), root.root_id)
        return True

    def _file(self, path: str, root_id: int, file: File | None) -> bool:
        """Read a file if it changed; whether it did."""
        from data import files

        try:
            stat = os.stat(path)
            if not stats.S_ISREG(stat.st_mode):
                raise OSError("it is not a regular file")
            unread = file is None or file.state != "read" or self._cuts_anew
            if file and not unread and (file.mtime_ns, file.size) == _stamp(stat):
                return False
            digest = bytes.fromhex(files.sha256_of(Path(path)))
        except OSError as error:
            self.report.skipped.append((path, error.strerror or str(error)))
            return False
        size, mtime_ns = stat.st_size, sources.noted_time(stat)
        if file and not unread and file.sha256 == digest:
            same = replace(file, mtime_ns=mtime_ns, size=size)
            if same != file:
                self._step(lambda counts: sources.put_file(self._db, counts, same))
            return False
        if file is None:
            file = File(self._next_file_id, root_id, path, b"", 0, 0, "reading")
            self._next_file_id += 1
        self._read(replace(file, sha256=digest, mtime_ns=mtime_ns, size=size, state="read"))
        return True

    def _read(self, file: File) -> None:
        """The documents of a file in place of those that it gave before."""
        from data.documents import DocumentError
        from data.readers import read

        partial = replace(file, sha256=b"", state="reading")
        self._step(lambda counts: sources.put_file(self._db, counts, partial))
        present = dict((uri, i) for i, uri in sources.documents_of(self._db, file.file_id))
        try:
            for document in read(Path(file.path)):
                self._put(document, file.file_id)
                present.pop(document.uri, None)
                if self._stops():
                    return  # it stays "reading": the next run begins it again
        except (DocumentError, OSError) as error:
            reason = str(error).removeprefix(f"{file.path}: ")
            self.report.skipped.append((file.path, reason))
            if present:
                logger.info("{} cannot be read; what it gave before stays", file.path)
            return
        gone = list(present.values())
        self._step(lambda counts: changes.remove_documents(self._db, counts, gone))
        self._step(lambda counts: sources.put_file(self._db, counts, file))
        self.report.removed += len(gone)

    def _put(self, document: Document, file_id: int | None) -> None:
        from data.chunks import chunks_of

        settings = self._settings
        try:
            sha256 = changes.fingerprint(document, settings.chunker, settings.n_sentences)
        except UnicodeEncodeError:
            self.report.skipped.append((document.uri, "its text holds halves of characters"))
            return
        if document.uri in self._uris:
            self._commit()
        present = changes.known(self._db, document.uri)
        if present and present[2] == sha256:
            self.report.unchanged += 1
            return
        chunks = chunks_of(document, settings.n_sentences)

        def put(counts: list[int]) -> None:
            change = changes.put_document(
                self._db, counts, document, chunks, sha256=sha256, file_id=file_id
            )
            self.report.added += change.kind == "added"
            self.report.updated += change.kind == "updated"
            self.report.n_new_chunks += change.n_new_chunks

        self._uris.add(document.uri)
        self._n_chars += len(document.text)
        self._step(put)

    def _remove(self, files: Iterable[File]) -> None:
        for file in files:
            self._commit_when_full()
            gone = [i for i, _ in sources.documents_of(self._db, file.file_id)]
            self.report.removed += len(gone)

            def forget(counts: list[int], file: File = file, gone: list[int] = gone) -> None:
                changes.remove_documents(self._db, counts, gone)
                sources.forget_file(self._db, counts, file.file_id)

            self._step(forget)

    def _note_chunker(self, counts: list[int]) -> None:
        row = astuple(self._settings)
        self._db.execute(insert("settings", "INSERT OR REPLACE"), sealed(1, *row))

    def _step(self, step: _Step) -> None:
        self._steps.append(step)
        self._commit_when_full()

    def _commit_when_full(self) -> None:
        is_late = time.monotonic() - self._since > BATCH_S
        if is_late or len(self._steps) >= 3 * BATCH_DOCUMENTS or self._n_chars > BATCH_CHARS:
            self._commit()

    def _commit(self) -> None:
        if self._steps:
            with self._db.transaction() as counts:
                for step in self._steps:
                    step(counts)
        self._steps.clear()
        self._uris.clear()
        self._n_chars, self._since = 0, time.monotonic()

    def _stops(self) -> bool:
        self.report.cancelled = self._cancel is not None and self._cancel.is_set()
        return self.report.cancelled

    def _counted(self) -> Report:
        self.report.n_chunks = self._db.one("state")[2]
        return self.report


def _stamp(stat: os.stat_result) -> tuple[int, int]:
    return stat.st_mtime_ns, stat.st_size
