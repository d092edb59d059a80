from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import data.chunks
from data.documents import Document, DocumentError
from retrieval import ingest, writer_lock
from retrieval.bases import KnowledgeBaseNotFoundError
from retrieval.embedding import EncoderMismatchError
from retrieval.knowledge_base import KnowledgeBase
from retrieval.store import Store
from retrieval.writer_lock import BusyError
from tests.retrieval import plain_backend
from tests.retrieval.documents import document, text_of
from tests.retrieval.encoders import FailingEncoder, HashingEncoder

Library = Callable[[int], Path]


@pytest.fixture(autouse=True)
def _backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrieval.backends.backend", lambda name: plain_backend)


def uris(base: KnowledgeBase, pattern: str = "*") -> list[str]:
    return base.delete([pattern], dry_run=True)


def found(base: KnowledgeBase, word: str) -> list[str]:
    with Store.open(base.folder) as store:
        return [c.text for c in store.chunks(store.lexical(f'"{word}"', 50)[0])]


def age(folder: Path) -> None:
    """Make files old enough for their time to be trusted."""
    for path in folder.rglob("*"):
        os.utime(path, (1_600_000_000, 1_600_000_000))


# names


def test_a_base_is_made_found_listed_and_removed(home: Path) -> None:
    assert KnowledgeBase.names() == []
    KnowledgeBase.create("notes").close()
    KnowledgeBase.create("a.b-2_c").close()
    base = KnowledgeBase.open("notes")
    assert (base.name, base.folder) == ("notes", home / "data" / "knowledge" / "notes")
    base.close()
    assert KnowledgeBase.names() == ["a.b-2_c", "notes"]
    KnowledgeBase.remove("notes")
    assert KnowledgeBase.names() == ["a.b-2_c"]
    assert not (home / "data" / "knowledge" / "notes").exists()
    with pytest.raises(FileExistsError):
        KnowledgeBase.create("a.b-2_c")


@pytest.mark.parametrize("name", ["", ".hidden", "Notes", "a b", "con", "nul.x", "end.", "ä"])
def test_names_that_trouble_a_system_are_refused(home: Path, name: str) -> None:
    with pytest.raises(ValueError, match="cannot name a knowledge base") as caught:
        KnowledgeBase.create(name)
    assert "\n" not in str(caught.value)


def test_a_base_that_is_not_there_names_the_nearest_and_the_command(home: Path) -> None:
    KnowledgeBase.create("wikipedia").close()
    with pytest.raises(
        KnowledgeBaseNotFoundError,
        match=r"no knowledge base 'wikipdia'; there is wikipedia; `sparsechat kb create wikipdia`",
    ):
        KnowledgeBase.open("wikipdia")


def test_a_path_is_a_base_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    KnowledgeBase.create("./mine").close()
    base = KnowledgeBase.open(tmp_path / "mine")
    assert base.folder == tmp_path / "mine"
    base.close()


def test_a_base_lives_alone_and_other_files_outlive_it(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("All my work.")
    with pytest.raises(FileExistsError, match=r"holds thesis\.txt and is not empty"):
        KnowledgeBase.create(tmp_path / "mine")
    assert not (tmp_path / "mine" / "knowledge.sqlite").exists()
    base = KnowledgeBase.create(tmp_path / "base")
    base.add_documents([document(1)])
    base.embed(HashingEncoder())
    base.build()
    base.close()
    (tmp_path / "base" / "notes.txt").write_text("Put here later.")
    KnowledgeBase.remove(tmp_path / "base")
    assert [path.name for path in (tmp_path / "base").iterdir()] == ["notes.txt"]


def test_a_chunk_has_at_least_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="n_sentences is 0"):
        KnowledgeBase.create(tmp_path / "base", n_sentences=0)
    assert not (tmp_path / "base").exists()


# adding


def test_a_folder_is_added_and_searched_by_words_at_once(
    base: KnowledgeBase, library: Library
) -> None:
    heard: list[tuple[int, int | None, str]] = []
    report = base.add([library(4)], on_progress=lambda *what: heard.append(what))
    assert (report.added, report.updated, report.unchanged, report.removed) == (4, 0, 0, 0)
    assert (report.n_chunks, report.n_new_chunks, report.skipped) == (12, 12, [])
    assert found(base, "item9") == [text_of(1).split("\n\n")[0]]
    assert [(done, total) for done, total, _ in heard] == [(i, 4) for i in range(5)]
    assert heard[2][2].endswith("2.txt")


def test_a_file_is_added_by_itself_and_globs_choose(base: KnowledgeBase, library: Library) -> None:
    folder = library(3)
    (folder / "more.md").write_text("# More\n\nA text in a file of another kind.")
    base.add([folder / "1.txt"])
    assert uris(base) == [(folder / "1.txt").as_posix()]
    assert base.add([folder], globs=["*.md"]).added == 1
    assert base.add([folder], exclude=["2.*"]).added == 1
    assert [Path(uri).name for uri in uris(base)] == ["1.txt", "more.md", "0.txt"]


def test_adding_again_reads_nothing(base: KnowledgeBase, library: Library) -> None:
    folder = library(3)
    base.add([folder])
    before = base.show()
    report = base.add([folder])
    assert (report.added, report.updated, report.unchanged, report.n_new_chunks) == (0, 0, 3, 0)
    assert base.show().sources == before.sources == ((str(folder), 3),)


def test_a_path_that_is_not_there_adds_nothing(base: KnowledgeBase, library: Library) -> None:
    with pytest.raises(FileNotFoundError, match=r"no file or folder .*nowhere; nothing was added"):
        base.add([library(1), "/nowhere"])
    assert uris(base) == []


def test_what_cannot_be_read_is_reported_with_its_reason(
    base: KnowledgeBase, library: Library
) -> None:
    folder = library(2)
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4 nothing")
    (folder / "notes.unknown").write_bytes(b"?")
    report = base.add([folder])
    assert report.added == 2
    assert sorted(Path(path).name for path, _ in report.skipped) == ["broken.pdf", "notes.unknown"]
    assert all(reason and "\n" not in reason for _, reason in report.skipped)


def test_documents_are_added_without_files_and_sync_leaves_them(base: KnowledgeBase) -> None:
    report = base.add_documents(document(i) for i in range(3))
    assert (report.added, report.n_new_chunks) == (3, 9)
    report = base.add_documents(document(i) for i in range(2))
    assert (report.added, report.unchanged) == (0, 2)
    assert base.sync().removed == 0
    assert len(uris(base)) == 3
    assert base.show().sources == (("added directly", 3),)


def test_the_last_of_two_documents_with_one_uri_stays(base: KnowledgeBase) -> None:
    texts = ["First version.", "Second version."]
    report = base.add_documents(Document("/same", "T", text) for text in texts)
    assert (report.added, report.updated) == (1, 1)
    assert found(base, "version") == ["Second version."]


def test_halves_of_characters_are_skipped(base: KnowledgeBase) -> None:
    report = base.add_documents([Document("/a", "T", "half \ud800."), document(1)])
    assert report.skipped == [("/a", "its text holds halves of characters")]
    assert report.added == 1


def test_a_text_with_null_characters_is_stored_as_it_is(base: KnowledgeBase) -> None:
    text = "Before\x00after. Second\x00."
    base.add_documents([Document("/a", "T\x00U", text)])
    with Store.open(base.folder) as store:
        assert store.documents([1])[0].text == text
    assert base.verify() == []


def test_documents_are_committed_in_batches(
    base: KnowledgeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "BATCH_DOCUMENTS", 1)
    seen = []

    def documents() -> Iterator[Document]:
        for i in range(7):
            yield document(i)
            with Store.open(base.folder) as reader:
                seen.append(reader.state().n_documents)

    base.add_documents(documents())
    assert seen == [0, 0, 3, 3, 3, 6, 6]
    assert base.show().n_documents == 7


def test_a_cancel_keeps_what_was_read_and_the_next_add_goes_on(
    base: KnowledgeBase, library: Library
) -> None:
    folder, cancel = library(6), threading.Event()

    def press(done: int, total: int | None, what: str) -> None:
        if done == 2:
            cancel.set()

    report = base.add([folder], on_progress=press, cancel=cancel)
    assert (report.cancelled, report.added) == (True, 2)
    report = base.add([folder])
    assert (report.cancelled, report.added, report.unchanged) == (False, 4, 2)


def test_an_interrupt_keeps_what_was_committed(
    base: KnowledgeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "BATCH_DOCUMENTS", 1)

    def documents() -> Iterator[Document]:
        for i in range(9):
            if i == 5:
                raise KeyboardInterrupt
            yield document(i)

    with pytest.raises(KeyboardInterrupt):
        base.add_documents(documents())
    assert base.show().n_documents == 3
    assert base.verify() == []


def test_what_came_before_damage_in_a_dump_is_kept(base: KnowledgeBase) -> None:
    def documents() -> Iterator[Document]:
        yield document(1)
        yield Document("https://a", "A", "Text.", metadata={"revision": "17"})
        raise DocumentError("the dump ends in the middle of an article")

    with pytest.raises(DocumentError, match="in the middle"):
        base.add_documents(documents())
    assert base.show().n_documents == 2
    assert (base.revision_of("https://a"), base.revision_of("https://b")) == ("17", None)
    assert base.revision_of("/library/1.txt") is None


# syncing


def test_sync_finds_what_is_new_changed_and_gone(
    base: KnowledgeBase, library: Library, encoder: HashingEncoder
) -> None:
    folder = library(4)
    age(folder)
    base.add([folder])
    base.embed(encoder)
    (folder / "0.txt").unlink()
    (folder / "1.txt").write_text(text_of(1).replace("item10", "thing10"))
    (folder / "7.txt").write_text(text_of(7))
    report = base.sync()
    assert (report.added, report.updated, report.unchanged, report.removed) == (1, 1, 2, 1)
    assert report.n_new_chunks == 3 + 1
    assert found(base, "item10") == [] and len(found(base, "thing10")) == 1
    assert found(base, "item0") == []
    n_before = len(encoder.encoded)
    assert base.embed(encoder) == 4
    assert len(encoder.encoded) == n_before + 4


def test_an_edit_that_keeps_size_and_young_time_is_found(
    base: KnowledgeBase, library: Library
) -> None:
    path = library(1) / "0.txt"
    base.add([path])
    stat = path.stat()
    path.write_text(text_of(0).replace("item3", "itemX"))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_size == stat.st_size
    assert base.sync().updated == 1


def test_files_that_only_got_a_new_time_are_hashed_and_left(
    base: KnowledgeBase, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = library(2)
    age(folder)
    base.add([folder])
    os.utime(folder / "0.txt", (1_650_000_000, 1_650_000_000))
    hashed: list[str] = []
    real = data.files.sha256_of
    monkeypatch.setattr("data.files.sha256_of", lambda p: hashed.append(p.name) or real(p))
    assert base.sync().unchanged == 2
    assert hashed == ["0.txt"]
    assert base.sync().unchanged == 2
    assert hashed == ["0.txt"]


def test_a_folder_that_is_not_there_loses_nothing(base: KnowledgeBase, library: Library) -> None:
    folder = library(2)
    base.add([folder])
    folder.rename(folder.with_name("elsewhere"))
    report = base.sync()
    assert (report.removed, [path for path, _ in report.skipped]) == (0, [str(folder)])
    assert "its documents stay" in report.skipped[0][1]
    assert len(uris(base)) == 2


def test_a_single_file_that_is_gone_goes(base: KnowledgeBase, library: Library) -> None:
    folder = library(2)
    base.add([folder / "0.txt", folder / "1.txt"])
    (folder / "0.txt").unlink()
    assert base.sync().removed == 1
    assert [Path(uri).name for uri in uris(base)] == ["1.txt"]


def test_a_file_under_two_roots_is_one_document(base: KnowledgeBase, library: Library) -> None:
    folder = library(2)
    base.add([folder / "0.txt"])
    base.add([folder])
    assert len(uris(base)) == 2
    report = base.sync()
    assert (report.added, report.removed, report.unchanged) == (0, 0, 2)


def test_rows_that_left_a_file_go(base: KnowledgeBase, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = ['{"title": "A", "text": "About apples."}', '{"title": "B", "text": "About pears."}']
    path.write_text("\n".join(rows))
    assert base.add([path]).added == 2
    path.write_text(rows[0])
    report = base.sync()
    assert (report.removed, report.unchanged) == (1, 1)
    assert found(base, "pears") == []


def test_a_file_that_can_no_longer_be_read_keeps_its_documents(
    base: KnowledgeBase, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"title": "A", "text": "About apples."}')
    base.add([path])
    path.write_text("{nothing")
    report = base.sync()
    assert (report.removed, len(report.skipped)) == (0, 1)
    assert found(base, "apples") == ["About apples."]
    path.write_text('{"title": "A", "text": "About plums."}')
    assert base.sync().updated == 1


def test_another_version_of_the_chunker_cuts_everything_anew(
    base: KnowledgeBase, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = library(2)
    age(folder)
    base.add([folder])
    monkeypatch.setattr("data.chunks.CHUNKER", "sentences-2")
    report = base.sync()
    assert (report.updated, report.n_new_chunks) == (2, 0)
    assert base.show().chunker == "sentences-2"
    assert base.sync().unchanged == 2


# deleting


def test_documents_are_deleted_by_path_folder_and_glob(
    base: KnowledgeBase, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = library(6)
    (folder / "sub").mkdir()
    (folder / "sub" / "a.txt").write_text("About subs.")
    base.add([folder])
    monkeypatch.chdir(folder)
    assert [Path(uri).name for uri in base.delete(["sub"])] == ["a.txt"]
    assert base.delete([str(folder / "0.txt")]) == [(folder / "0.txt").as_posix()]
    assert base.delete(["1.txt", "*/2.txt"], dry_run=True) == uris(base)[:2]
    assert len(base.delete(["1.txt", "*/[23].txt"])) == 3
    assert [Path(uri).name for uri in uris(base)] == ["4.txt", "5.txt"]
    assert base.delete(["nothing*"]) == []
    assert base.verify() == []


def test_what_was_deleted_stays_out_until_it_is_added_again(
    base: KnowledgeBase, library: Library
) -> None:
    folder = library(2)
    base.add([folder])
    base.delete(["*/0.txt"])
    assert base.sync().added == 0
    assert len(uris(base)) == 1
    assert base.add([folder]).added == 1
    assert len(uris(base)) == 2


# vectors and indexes


def test_embedding_resumes_where_it_ended(
    base: KnowledgeBase, encoder: HashingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retrieval.embedding.BATCH", 4)
    base.add_documents(document(i) for i in range(5))
    with pytest.raises(KeyboardInterrupt):
        base.embed(FailingEncoder(9, KeyboardInterrupt()))
    assert base.show().n_embedded == 8
    heard: list[tuple[int, int | None, str]] = []
    assert base.embed(encoder, lambda *what: heard.append(what)) == 7
    assert heard == [(12, 15, "vectors"), (15, 15, "vectors")]
    assert base.embed(encoder) == 0


def test_a_cancelled_embedding_keeps_what_it_has(
    base: KnowledgeBase, encoder: HashingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retrieval.embedding.BATCH", 4)
    base.add_documents(document(i) for i in range(5))
    cancel = threading.Event()
    assert base.embed(encoder, lambda *what: cancel.set(), cancel) == 4
    assert base.show().n_embedded == 4


def test_build_covers_the_chunks_below_the_first_without_a_vector(
    base: KnowledgeBase, encoder: HashingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retrieval.embedding.BATCH", 4)
    assert base.build() == 0
    base.add_documents(document(i) for i in range(5))
    assert base.build() == 0
    cancel = threading.Event()
    base.embed(encoder, lambda *what: cancel.set(), cancel)
    assert base.build() == 1
    assert (base.show().n_indexed, base.show().kind) == (4, "plain")
    base.embed(encoder)
    assert base.build() == 2
    assert base.show().n_indexed == 15
    assert base.build() == 2


def test_build_again_after_a_deletion_frees_the_ids(full: KnowledgeBase) -> None:
    full.delete(["/library/3.txt"])
    with Store.open(full.folder) as store:
        assert store.deleted().tolist() == [10, 11, 12]
    assert full.build() == 2
    with Store.open(full.folder) as store:
        assert store.deleted().tolist() == []
    assert full.show().n_indexed == 27


def test_another_backend_is_built_with_the_next_time(
    full: KnowledgeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store.open(full.folder, write=True) as store:
        store.use_backend("other")
    assert full.build() == 2
    assert full.show().backend == "other"


def test_a_backend_that_is_not_there_is_refused(
    full: KnowledgeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    with Store.open(full.folder, write=True) as store:
        with pytest.raises(ValueError, match="no vector backend 'nothing'; this build has"):
            store.use_backend("nothing")


def test_a_cancelled_build_leaves_the_present_index(full: KnowledgeBase) -> None:
    full.add_documents([document(20)])
    full.embed(HashingEncoder())
    cancel = threading.Event()
    cancel.set()
    assert full.build(cancel=cancel) == 1
    assert full.build() == 2


def test_another_encoder_is_refused_with_the_command(
    full: KnowledgeBase, encoder: HashingEncoder
) -> None:
    full.use_encoder(encoder)
    with pytest.raises(EncoderMismatchError, match="`sparsechat kb embed base --encoder") as caught:
        full.use_encoder(HashingEncoder(16, "other"))
    assert "hashing-64" in str(caught.value) and "other-16" in str(caught.value)
    with pytest.raises(EncoderMismatchError):
        KnowledgeBase.open(full.folder, HashingEncoder(16, "other"))


def test_embedding_with_another_encoder_makes_it_the_bases(full: KnowledgeBase) -> None:
    other = HashingEncoder(16, "other")
    assert full.embed(other, name="other-model") == 30
    info = full.show()
    assert (info.encoder, info.encoder_id, info.dimension) == ("other-model", "other-16", 16)
    with full._reader.view() as (_, generation):
        assert generation is None  # the present index holds the other encoder's vectors
    assert full.build() == 2
    with full._reader.view() as (_, generation):
        assert generation is not None and generation.manifest.dimension == 16


def test_compact_drops_what_nobody_needs(full: KnowledgeBase) -> None:
    other = HashingEncoder(16, "other")
    full.embed(other)
    full.delete(["/library/*"])
    before = full.show()
    full.compact()
    assert full.show().n_bytes < before.n_bytes
    with Store.open(full.folder) as store:
        assert store.db.rows("SELECT count(*) FROM embeddings") == [(0,)]
    assert full.verify() == []


# a snapshot and its generation


def test_a_view_pairs_a_snapshot_with_its_generation(
    full: KnowledgeBase, encoder: HashingEncoder
) -> None:
    writer = KnowledgeBase.open(full.folder)
    with full._reader.view() as (store, generation):
        writer.delete(["/library/0.txt"])
        writer.build()
        assert generation is not None and generation.number == 1
        assert store.state().n_documents == 10 and store.deleted().tolist() == []
        ids, _ = generation.search(store.vectors([1]), 1)
        assert ids.tolist() == [[1]]
    with full._reader.view() as (store, generation):
        assert generation is not None and generation.number == 2
        assert store.state().n_documents == 9
    writer.close()


def test_a_build_between_generation_and_snapshot_is_noticed(
    full: KnowledgeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = full._reader
    real, calls = Store.snapshot, []

    def build_first(store: Store) -> object:
        if not calls:
            calls.append(1)
            writer = KnowledgeBase.open(full.folder)
            writer.delete(["/library/0.txt"])
            writer.build()
            writer.close()
        return real(store)

    reader.store()
    with monkeypatch.context() as patch:
        patch.setattr(Store, "snapshot", build_first)
        with reader.view() as (store, generation):
            assert generation is not None and generation.number == 2
            assert np.isnan(store.vectors([1])).all()


def test_a_closed_base_opens_again_when_it_is_used(full: KnowledgeBase) -> None:
    full.close()
    assert full.show().n_documents == 10
    full.close()
    full.close()


# one writer


def test_a_second_writer_is_refused_and_readers_are_not(
    full: KnowledgeBase, library: Library
) -> None:
    with Store.open(full.folder, write=True):
        for write in (
            lambda: full.add([library(1)]),
            lambda: full.sync(),
            lambda: full.delete(["*"]),
            lambda: full.embed(HashingEncoder()),
            lambda: full.build(),
            lambda: full.compact(),
            lambda: KnowledgeBase.remove(full.folder),
        ):
            with pytest.raises(BusyError, match="base is being written to by process"):
                write()
        assert full.show().n_documents == 10
        assert full.delete(["*"], dry_run=True)
    assert full.build() == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_does_not_keep_the_lock(tmp_path: Path) -> None:
    lock = writer_lock.WriterLock(tmp_path)
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(tell, b"!")
        time.sleep(30)
        os._exit(0)
    try:
        os.read(ready, 1)
        os.close(lock._descriptor)  # type: ignore[arg-type]
        lock._descriptor = None
        writer_lock.WriterLock(tmp_path).release()
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
