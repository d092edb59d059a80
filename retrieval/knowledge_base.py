"""A knowledge base: documents in, passages out. The thin middle; every part has a file.

store.py        what is true: one SQLite file           ingest.py       documents into it
generations.py  indexes derived from it                 maintenance.py  checks, repair, description
search.py       a query against both                    embedding.py    vectors and indexes
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from data.files import private_folder

from . import bases, embedding, generations, maintenance, sources, texts
from .bases import KnowledgeBaseNotFoundError
from .changes import remove_documents
from .damage import DamagedError
from .embedding import EncoderMismatchError
from .encoder import OwnEncoder
from .ingest import Cancel, Ingest, OnProgress
from .reader import Reader
from .reports import Info, Problem, Report
from .store import Store
from .writer_lock import BusyError, WriterLock

if TYPE_CHECKING:
    from data.documents import Document

    from .encoder import Encoder
    from .passages import Passage
    from .search import Mode, Search
    from .shards import Merged
    from .texts import Ids

__all__ = [
    "BusyError",
    "DamagedError",
    "EncoderMismatchError",
    "KnowledgeBase",
    "KnowledgeBaseNotFoundError",
]

Filter = str | Mapping[str, str]


class KnowledgeBase:
    """Searches see whole commits and are never blocked, from any thread. Methods that write hold
    the base's lock while they run: BusyError at once when another process or thread has it.

    DamagedError comes from whatever reads a damaged database first; `verify` works on it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.name = folder, folder.name
        self._encoder: Encoder | None = None
        self._own: OwnEncoder | None = None
        self._reader = Reader(folder)

    @classmethod
    def create(
        cls, name_or_path: str | Path, *, n_sentences: int = 3, encoder: str | None = "minilm"
    ) -> KnowledgeBase:
        """A new base. `encoder` is what load_encoder takes; None = never more than lexical.

        FileExistsError when it is there; ValueError for a name that cannot be one.
        """
        folder = bases.folder_of(name_or_path)
        if n_sentences < 1:
            raise ValueError(f"a chunk has at least one sentence; n_sentences is {n_sentences}")
        Store.create(folder, n_sentences=n_sentences, encoder=encoder).close()
        return cls.open(folder)

    @classmethod
    def open(
        cls,
        name_or_path: str | Path,
        encoder: Encoder | None = None,
        *,
        loads_encoder: bool = True,
    ) -> KnowledgeBase:
        """A base that is there: KnowledgeBaseNotFoundError names the nearest ones.

        encoder        of its vectors
        loads_encoder  without one, the first search that wants vectors loads the base's own, which
                       takes seconds; False: words are searched alone, until `use_encoder`
        """
        base = cls(bases.existing(name_or_path))
        base._own = OwnEncoder() if loads_encoder else None
        with suppress(DamagedError):  # said at the first use; `verify` has to work
            base._reader.store()
        if encoder is not None:
            base.use_encoder(encoder)
        return base

    @staticmethod
    def names() -> list[str]:
        """The bases that have a name, alphabetically."""
        return bases.names()

    @staticmethod
    def remove(name_or_path: str | Path) -> None:
        """Delete a base; files in its folder that are not its own stay. BusyError while it is
        written to."""
        folder = bases.existing(name_or_path)
        lock = WriterLock(folder)
        try:
            generations.discard_all(folder)
            bases.remove(folder)
        finally:
            lock.release()

    def close(self) -> None:
        """Give back files and memory; it may be used again, and opens them again."""
        self._reader.close()

    def use_encoder(self, encoder: Encoder) -> None:
        """Let searches be hybrid. EncoderMismatchError names the command that re-embeds."""
        embedding.require_same(self.name, self._reader.store().settings(), encoder)
        self._encoder = encoder

    # writing

    def use_backend(self, name: str, url: str | None = None) -> None:
        """From the next build on the index is this backend's, on the server at `url` if it has
        one; see Store.use_backend."""
        with self._writing() as store:
            store.use_backend(name, url)

    def add(
        self,
        paths: Sequence[str | Path],
        *,
        globs: Sequence[str] = (),
        exclude: Sequence[str] = (),
        on_progress: OnProgress | None = None,
        cancel: Cancel | None = None,
    ) -> Report:
        """Add files and folders, and remember them for `sync`. Only what changed is read.

        globs, exclude  which files of the folders; see data.readers.files_in
        on_progress     hears (files done, files in all, path)
        FileNotFoundError for a path that is not there, before anything is added.
        """
        absolute = [sources.absolute(path) for path in paths]
        with self._writing() as store:
            roots = [sources.put_root(store.db, path, globs, exclude) for path in absolute]
            return Ingest(store, on_progress, cancel).files(roots, adds=True)

    def add_documents(
        self,
        documents: Iterable[Document],
        *,
        on_progress: OnProgress | None = None,
        cancel: Cancel | None = None,
    ) -> Report:
        """Add documents, or update those with the same URI; `sync` leaves them alone."""
        with self._writing() as store:
            return Ingest(store, on_progress, cancel).documents(documents)

    def sync(
        self, *, on_progress: OnProgress | None = None, cancel: Cancel | None = None
    ) -> Report:
        """Everything that `add` was given once more: what is new, what changed, what is gone."""
        with self._writing() as store:
            return Ingest(store, on_progress, cancel).files(sources.roots(store.db), adds=False)

    def delete(self, patterns: Sequence[str], dry_run: bool = False) -> list[str]:
        """Remove the documents that a pattern names (see sources.matching); their URIs. A file
        without documents left stays out until it is added again by `add`."""
        if dry_run:
            return [uri for _, _, uri in sources.matching(self._reader.store().db, patterns)]
        with self._writing() as store:
            found = list(sources.matching(store.db, patterns))
            if found:
                with store.db.transaction() as counts:
                    remove_documents(store.db, counts, [row[0] for row in found])
                    sources.mark_deleted(store.db, {row[1] for row in found})
        return [uri for _, _, uri in found]

    def embed(
        self,
        encoder: Encoder,
        on_progress: OnProgress | None = None,
        cancel: Cancel | None = None,
        name: str | None = None,
    ) -> int:
        """Vectors for all chunks that have none, committed batch by batch; how many were made.

        An encoder that is not the base's becomes the base's, and all is embedded anew; `name` is
        what load_encoder takes for it. on_progress hears (chunks with vectors, chunks, "vectors").
        """
        with self._writing() as store:
            n = embedding.embed(store, encoder, on_progress, cancel, name)
        self._encoder = encoder
        return n

    def build(self, on_progress: OnProgress | None = None, cancel: Cancel | None = None) -> int:
        """Publish a generation over all vectors; its number, 0 when there are no vectors. What is
        current and up to date stays; after a cancel the present one does."""
        with self._writing() as store:
            return embedding.build(store, on_progress, cancel)

    def encode_shard(
        self,
        encoder: Encoder,
        shard: tuple[int, int],
        out: str | Path,
        on_progress: OnProgress | None = None,
        cancel: Cancel | None = None,
    ) -> int:
        """Encode shard (i, n) of what lacks vectors into a file, for `merge`; the base is only
        read. See shards.encode."""
        from . import shards

        store = self._reader.store()
        return shards.encode(store, encoder, shard, Path(out), on_progress, cancel)

    def merge(
        self,
        paths: Sequence[str | Path],
        on_progress: OnProgress | None = None,
        cancel: Cancel | None = None,
    ) -> Merged:
        """Take in the files of `encode_shard`, all or none of them, and build."""
        from . import shards

        with self._writing() as store:
            merged = shards.merge(store, [Path(path) for path in paths], on_progress, cancel)
            embedding.build(store, on_progress, cancel)
        return merged

    def compact(self) -> None:
        """Drop what no chunk needs and give the room back."""
        with self._writing() as store:
            maintenance.compact(store)

    def verify(self, repair: bool = False) -> list[Problem]:
        """Everything read and compared with what was written; [] when nothing is wrong.

        repair  set damaged files aside, take over what is whole, rebuild the index
        """
        problem = maintenance.database_problem(self.folder, repair)
        problems = [problem] if problem else []
        if problem and not repair:
            return problems
        if index := maintenance.index_problem(self.folder):
            problems.append(index)
        if repair and problems and self._reader.store().settings().encoder_id:
            self.build()
            problems = [maintenance.repaired(found) for found in problems]
        return problems

    def show(self) -> Info:
        """What there is, for people."""
        return maintenance.info(self._reader.store())

    # reading

    def revision_of(self, uri: str) -> str | None:
        """The "revision" in the metadata of a document; None when there is no such document."""
        return texts.revision_of(self._reader.store().db, uri)

    def search(
        self,
        query: str,
        k: int = 3,
        w: int = 5,
        w_th: float = 0.5,
        mode: Mode = "hybrid",
        filter: Filter | None = None,
    ) -> list[Passage]:
        """The k best passages for `query`, best first; fewer when nothing more is good enough.

        w, w_th  each grows by up to w neighbouring chunks a side that are as similar as w_th
        filter   see Store.allowed
        """
        return list(self.look_up(query, k, w, w_th, mode, filter).passages)

    def look_up(
        self,
        query: str,
        k: int = 3,
        w: int = 5,
        w_th: float = 0.5,
        mode: Mode = "hybrid",
        filter: Filter | None = None,
    ) -> Search:
        """The same with everything that `/why` shows."""
        from . import search

        with self._reader.view() as (store, generation):
            settings, encoder, problem = store.settings(), self._encoder, ""
            if encoder is None and self._own and settings.encoder_id and mode != "lexical":
                encoder, problem = self._own.of(settings.encoder)
            if not embedding.is_same(settings, encoder):
                encoder = None
            found = search.look_up(
                store, generation, encoder, query, k=k, w=w, w_th=w_th, mode=mode, filter=filter
            )
        return replace(found, why=problem) if problem else found

    def chunk_ids(self) -> Ids:
        """(n,) int64: the ids of all chunks, ascending."""
        return self._reader.store().allowed("*")

    def passages(self, chunk_ids: Sequence[int]) -> list[Passage]:
        """Those chunks as they stand, without neighbours; what is gone is left out."""
        from .passages import alone

        store = self._reader.store()
        with store.snapshot():
            return alone(store, chunk_ids)

    @contextmanager
    def _writing(self) -> Iterator[Store]:
        private_folder(self.folder)
        with Store.open(self.folder, write=True) as store:
            yield store
