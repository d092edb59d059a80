from __future__ import annotations

import os
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from data.chunks import chunks_of
from data.documents import Document, Section
from retrieval import changes, checks, commits, connections, database, vectors
from retrieval.damage import DamagedError
from retrieval.store import Store
from retrieval.writer_lock import BusyError
from tests.retrieval.documents import document, in_sections, text_of
from tests.retrieval.encoders import HashingEncoder


def put(store: Store, *documents: Document, n_sentences: int = 3) -> list[changes.Change]:
    with store.db.transaction() as counts:
        return [
            changes.put_document(
                store.db,
                counts,
                each,
                chunks_of(each, n_sentences),
                sha256=changes.fingerprint(each, "sentences-1", n_sentences),
            )
            for each in documents
        ]


def embed(store: Store, encoder: HashingEncoder) -> None:
    store.use_encoder(encoder.encoder_id, encoder.dimension)
    while batch := store.unembedded(7):
        store.put_vectors([sha for sha, _ in batch], encoder.encode([text for _, text in batch]))


def ids_of(store: Store, uri: str) -> list[int]:
    return store.allowed(uri).tolist()


def test_a_new_store_is_empty_and_knows_what_it_was_made_with(tmp_path: Path) -> None:
    with Store.create(tmp_path / "base", n_sentences=5, encoder=None) as store:
        settings, state = store.settings(), store.state()
    assert (settings.n_sentences, settings.encoder, settings.encoder_id) == (5, None, None)
    assert (state.commit, state.n_documents, state.n_chunks, state.n_pending) == (0, 0, 0, 0)


def test_a_folder_holds_one_store_only(store: Store, tmp_path: Path) -> None:
    store.close()
    with pytest.raises(FileExistsError, match=r"there is a knowledge base in .*base already"):
        Store.create(tmp_path / "base")


def test_a_folder_without_a_store_is_said_to_be_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no knowledge base in .*: no knowledge\.sqlite"):
        Store.open(tmp_path)


def test_chunks_are_pieces_of_the_stored_text(store: Store) -> None:
    pages = "Erste Seite, ä ö ü. Noch ein Satz.\n\n🙂 Zweite Seite — ohne Punkt"
    middle = pages.index("🙂")
    sections = (Section(0, middle, ("Kapitel", "Teil"), 1), Section(middle, len(pages), (), 2))
    put(store, Document("/a.pdf", "Titel", pages, sections, {"mime": "application/pdf"}))
    chunks = store.chunks(ids_of(store, "/a.pdf"))
    (stored,) = store.documents([chunks[0].document_id])
    assert [stored.text[c.start : c.end] for c in chunks] == [c.text for c in chunks]
    assert [(c.ord, c.page, c.headings) for c in chunks] == [
        (0, 1, ("Kapitel", "Teil")),
        (1, 2, ()),
    ]
    assert (stored.uri, stored.title, stored.metadata["mime"]) == (
        "/a.pdf",
        "Titel",
        "application/pdf",
    )
    span = stored.text[chunks[0].start : chunks[1].end]
    assert span.startswith("Erste") and span.endswith("Punkt")


def test_a_title_weighs_more_than_the_text(store: Store) -> None:
    put(
        store,
        Document("/a", "Zebra", "It eats grass."),
        Document("/b", "Grass", "A zebra eats it."),
    )
    ids, scores = store.lexical('"zebra"', 5)
    assert [store.documents([c.document_id])[0].uri for c in store.chunks(ids)] == ["/a", "/b"]
    assert ids.dtype == np.int64 and scores.dtype == np.float32
    assert scores[0] > scores[1] > 0


def test_headings_are_found_as_titles_are(store: Store) -> None:
    text = "It is long."
    put(store, Document("/a", "Rivers", text, (Section(0, len(text), ("Europe", "Danube")),)))
    assert len(store.lexical('title : "danube"', 5)[0]) == 1


def test_lexical_search_is_limited_to_what_is_allowed(store: Store) -> None:
    put(store, *(document(i) for i in range(4)))
    among = store.allowed("/library/2.txt")
    ids, _ = store.lexical('"number"', 50, among)
    assert sorted(ids.tolist()) == among.tolist()
    assert len(store.lexical('"number"', 2)[0]) == 2
    assert len(store.lexical('"number"', 2, np.empty(0, np.int64))[0]) == 0


def test_a_query_that_fts_cannot_read_is_one_line(store: Store) -> None:
    with pytest.raises(ValueError, match="is not a full-text query") as caught:
        store.lexical('AND "', 3)
    assert "\n" not in str(caught.value)


def test_filters_are_globs_over_uri_title_and_metadata(store: Store) -> None:
    put(store, *(document(i) for i in range(6)))
    assert len(store.allowed("/library/*")) == 18
    assert len(store.allowed({"uri": "/library/[01].txt"})) == 6
    assert len(store.allowed({"title": "Book 3", "shelf": "0"})) == 3
    assert len(store.allowed({"title": "Book 3", "shelf": "1"})) == 0
    assert len(store.allowed({'no "such" key': "*"})) == 0
    ids = store.allowed("*")
    assert ids.dtype == np.int64 and (np.diff(ids) > 0).all()


def test_neighbours_stay_in_the_document(store: Store) -> None:
    put(store, document(0, 5), document(1, 5))
    first, second = ids_of(store, "/library/0.txt"), ids_of(store, "/library/1.txt")
    assert [c.chunk_id for c in store.neighbours(first[4], 2)] == first[2:]
    assert [c.chunk_id for c in store.neighbours(second[0], 9)] == second
    assert [c.chunk_id for c in store.neighbours(second[2], 0)] == [second[2]]
    assert store.neighbours(999, 3) == []


def test_rows_come_in_the_order_of_the_ids_without_those_that_are_gone(store: Store) -> None:
    put(store, document(0))
    assert [c.chunk_id for c in store.chunks([3, 77, 1])] == [3, 1]
    assert [d.document_id for d in store.documents(np.array([1, 5]))] == [1]


def test_vectors_are_normalised_and_missing_ones_are_nan(
    store: Store, encoder: HashingEncoder
) -> None:
    put(store, document(0))
    assert store.vectors([1]).shape == (1, 0)
    embed(store, encoder)
    put(store, document(1))
    vectors = store.vectors([4, 2, 1])
    assert vectors.shape == (3, encoder.dimension) and vectors.dtype == np.float32
    assert np.isnan(vectors[0]).all()
    assert_allclose(np.linalg.norm(vectors[1:], axis=1), 1, rtol=1e-6)
    chunks = store.chunks([2, 1])
    assert_allclose(vectors[1:], encoder.encode([f"Book 0: {c.text}" for c in chunks]), atol=1e-3)


def test_an_encoder_is_given_title_headings_and_text(store: Store) -> None:
    text = "It is long."
    put(
        store,
        Document("/a", "Rivers", text, (Section(0, len(text), ("Europe", "Danube")),)),
        Document("/b", "", text),
    )
    assert [t for _, t in store.unembedded(5)] == ["Rivers — Europe — Danube: It is long.", text]


def test_a_text_that_repeats_is_encoded_once(store: Store, encoder: HashingEncoder) -> None:
    same = "The same sentence."
    put(store, *(Document(f"/{i}", "Twin", same) for i in range(3)))
    embed(store, encoder)
    assert encoder.encoded == [f"Twin: {same}"]
    put(store, Document("/late", "Twin", same))
    assert store.state().n_pending == 0
    assert_allclose(store.vectors([4]), store.vectors([1]))


def test_blocks_of_vectors_come_in_the_order_of_ids(
    store: Store, encoder: HashingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retrieval.vectors.BLOCK", 4)
    put(store, *(document(i) for i in range(4)))
    embed(store, encoder)
    blocks = list(store.vectors_after(None))
    assert [i for ids, _ in blocks for i in ids.tolist()] == list(range(1, 13))
    assert_allclose(np.concatenate([m for _, m in blocks]), store.vectors(range(1, 13)))
    assert [ids.tolist() for ids, _ in store.vectors_after(5, until=8)] == [[6, 7, 8]]


def test_the_delta_is_read_once_a_commit(
    store: Store, encoder: HashingEncoder, tmp_path: Path
) -> None:
    put(store, document(0))
    embed(store, encoder)
    with Store.open(tmp_path / "base") as reader:
        ids, matrix = reader.delta(1)
        assert ids.tolist() == [2, 3] and matrix.shape == (2, encoder.dimension)
        assert reader.delta(1)[1] is matrix
        put(store, document(1))
        embed(store, encoder)
        assert reader.delta(1)[0].tolist() == [2, 3, 4, 5, 6]
        assert reader.delta(6)[0].tolist() == []


def test_the_delta_follows_every_change(
    store: Store, encoder: HashingEncoder, tmp_path: Path, rng: np.random.Generator
) -> None:
    store.use_encoder(encoder.encoder_id, encoder.dimension)
    with Store.open(tmp_path / "base") as reader:
        for step in range(60):
            kind = rng.integers(4)
            if kind == 0:
                put(store, *(document(int(i), 4) for i in rng.integers(0, 12, 3)))
            elif kind == 1:
                put(store, Document(f"/library/{rng.integers(12)}.txt", "", f"Edited {step}."))
            elif kind == 2 and (batch := store.unembedded(int(rng.integers(1, 9)))):
                texts = [text for _, text in batch]
                store.put_vectors([sha for sha, _ in batch], encoder.encode(texts))
            elif present := store.db.rows("SELECT id FROM documents ORDER BY random() LIMIT 1"):
                with store.db.transaction() as counts:
                    changes.remove_documents(store.db, counts, present[0])
            for after in (0, 10):
                ids, matrix = reader.delta(after)
                blocks = list(store.vectors_after(after))
                assert ids.tolist() == [i for block, _ in blocks for i in block.tolist()]
                if blocks:
                    assert_allclose(matrix, np.concatenate([m for _, m in blocks]))


def test_a_new_commit_costs_the_delta_what_is_new(
    store: Store, encoder: HashingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, *(document(i) for i in range(4)))
    embed(store, encoder)
    store.delta(0)
    put(store, document(9))
    embed(store, encoder)
    n_read = []
    real = vectors._matrix
    monkeypatch.setattr(
        vectors, "_matrix", lambda db, rows, d: n_read.append(len(rows)) or real(db, rows, d)
    )
    n_all = len(store.delta(0)[0])
    assert n_all == store.state().n_chunks and sum(n_read) == n_all - 12


def test_complete_to_is_below_the_first_chunk_without_a_vector(
    store: Store, encoder: HashingEncoder
) -> None:
    put(store, document(0), document(1))
    store.use_encoder(encoder.encoder_id, encoder.dimension)
    assert store.state().complete_to == 0
    batch = store.unembedded(4)
    store.put_vectors([sha for sha, _ in batch], encoder.encode([text for _, text in batch]))
    state = store.state()
    assert (state.n_chunks, state.n_pending, state.complete_to) == (6, 2, 4)


def test_another_encoder_begins_anew_and_the_first_is_kept(
    store: Store, encoder: HashingEncoder
) -> None:
    put(store, document(0))
    embed(store, encoder)
    other = HashingEncoder(16, "other")
    store.use_encoder(other.encoder_id, other.dimension, "other-model")
    assert store.state().n_pending == 3
    assert np.isnan(store.vectors([1])).all()
    embed(store, other)
    assert store.vectors([1]).shape == (1, 16)
    assert store.settings().encoder == "other-model"
    store.use_encoder(encoder.encoder_id, encoder.dimension)
    assert store.state().n_pending == 0
    with pytest.raises(ValueError, match="gives 99 numbers, its stored vectors have 64"):
        store.use_encoder(encoder.encoder_id, 99)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [(np.zeros((3, 5), np.float32), "do not fit"), (np.full((3, 64), np.nan), "not finite")],
)
def test_vectors_that_cannot_be_right_are_refused(
    store: Store, encoder: HashingEncoder, matrix: np.ndarray, message: str
) -> None:
    put(store, document(0))
    store.use_encoder(encoder.encoder_id, encoder.dimension)
    with pytest.raises(ValueError, match=message):
        store.put_vectors([sha for sha, _ in store.unembedded(3)], matrix)
    assert store.state().n_pending == 3


# changing documents


def test_an_edited_paragraph_changes_its_own_chunk_only(
    store: Store, encoder: HashingEncoder
) -> None:
    paragraphs = text_of(0, 5).split("\n\n")
    before = in_sections("/a", "Book", paragraphs)
    put(store, before)
    embed(store, encoder)
    paragraphs[2] = "Something else. It is longer than before it was. And new."
    (change,) = put(store, in_sections(before.uri, before.title, paragraphs))
    assert (change.kind, change.n_chunks, change.n_new_chunks) == ("updated", 5, 1)
    chunks = store.neighbours(1, 9)
    assert [c.chunk_id for c in chunks] == [1, 2, 6, 4, 5]
    assert [c.ord for c in chunks] == [0, 1, 2, 3, 4]
    (stored,) = store.documents([1])
    assert [stored.text[c.start : c.end] for c in chunks] == [c.text for c in chunks]
    assert store.deleted().tolist() == [3]
    assert store.state().n_pending == 1
    assert store.lexical('"item7"', 5)[0].tolist() == []
    assert store.lexical('"longer"', 5)[0].tolist() == [6]


def test_a_new_title_is_a_new_text_for_the_encoder(store: Store) -> None:
    put(store, document(0))
    put(store, Document("/library/0.txt", "Renamed", document(0).text))
    assert ids_of(store, "/library/0.txt") == [4, 5, 6]


def test_a_text_that_stands_twice_in_a_document_keeps_both_ids(store: Store) -> None:
    twice = ["One. Two. Three."] * 2
    put(store, in_sections("/a", "T", [*twice, "Four. Five. Six."]))
    put(store, in_sections("/a", "T", [*twice, "Other. New. Words."]))
    assert ids_of(store, "/a") == [1, 2, 4]


def test_removed_documents_leave_nothing_to_be_found(store: Store, encoder: HashingEncoder) -> None:
    put(store, document(0), document(1))
    embed(store, encoder)
    with store.db.transaction() as counts:
        changes.remove_documents(store.db, counts, [1])
    assert store.lexical('"item1"', 5)[0].tolist() == []
    assert [ids.tolist() for ids, _ in store.vectors_after(None)] == [[4, 5, 6]]
    assert store.deleted().tolist() == [1, 2, 3]
    state = store.state()
    assert (state.n_documents, state.n_chunks, state.last_chunk_id) == (1, 3, 6)


def test_ids_are_never_given_twice(store: Store) -> None:
    put(store, document(0))
    with store.db.transaction() as counts:
        changes.remove_documents(store.db, counts, [1])
    put(store, document(0))
    assert ids_of(store, "/library/0.txt") == [4, 5, 6]
    assert store.chunks([4])[0].document_id == 2


def test_a_document_without_text_has_no_chunks(store: Store) -> None:
    (change,) = put(store, Document("/empty", "Empty", ""))
    assert change.n_chunks == 0
    assert store.documents([1])[0].text == ""


# snapshots and commits


def test_a_snapshot_stays_what_it_was(store: Store, tmp_path: Path) -> None:
    put(store, document(0))
    with Store.open(tmp_path / "base") as reader:
        with reader.snapshot() as before:
            put(store, document(1))
            assert reader.state() == before
            assert reader.lexical('"item9"', 3)[0].tolist() == []
        assert reader.state().commit == before.commit + 1
        assert reader.lexical('"item9"', 3)[0].tolist() == [4]


def test_a_transaction_that_fails_leaves_nothing(store: Store, tmp_path: Path) -> None:
    put(store, document(0))
    before = store.state()
    with pytest.raises(KeyboardInterrupt):
        with store.db.transaction() as counts:
            changes.put_document(store.db, counts, document(1), [], sha256=b"")
            raise KeyboardInterrupt
    assert store.state() == before
    put(store, document(2))
    assert store.state().commit == before.commit + 1


def test_every_thread_reads_its_own_snapshot(store: Store, tmp_path: Path) -> None:
    put(store, document(0))
    seen: dict[str, int] = {}
    with Store.open(tmp_path / "base") as reader:
        with reader.snapshot() as mine:
            put(store, document(1))
            thread = threading.Thread(target=lambda: seen.update(n=reader.state().n_documents))
            thread.start()
            thread.join()
            assert (mine.n_documents, seen["n"]) == (1, 2)


def test_a_closed_store_says_so(store: Store, tmp_path: Path) -> None:
    reader = Store.open(tmp_path / "base")
    reader.close()
    with pytest.raises(ValueError, match="the knowledge base base has been closed"):
        reader.state()


def test_a_second_writer_hears_at_once_who_the_first_is(store: Store, tmp_path: Path) -> None:
    with pytest.raises(BusyError, match=rf"being written to by process {os.getpid()} since") as got:
        Store.open(tmp_path / "base", write=True)
    assert "\n" not in str(got.value)
    store.close()
    Store.open(tmp_path / "base", write=True).close()


def test_readers_keep_a_checkpoint_from_nothing_and_the_log_ends_when_they_do(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "CHECKPOINT_BYTES", 0)
    with Store.open(tmp_path / "base") as reader, reader.snapshot() as before:
        for i in range(5):
            put(store, document(i))
        assert reader.state() == before
    store.close()
    assert (tmp_path / "base" / "knowledge.sqlite-wal").stat().st_size == 0
    with Store.open(tmp_path / "base") as reader:
        assert reader.state().n_documents == 5


def test_a_store_in_a_folder_that_cannot_be_written_to_is_read(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, document(0))
    store.close()
    for beside in ("-wal", "-shm"):
        (tmp_path / "base" / f"knowledge.sqlite{beside}").unlink(missing_ok=True)
    real = connections._opened

    def opened(path: Path, parameters: str) -> sqlite3.Connection:
        if "immutable" not in parameters:
            raise sqlite3.OperationalError("unable to open database file")
        return real(path, parameters)

    monkeypatch.setattr(connections, "_opened", opened)
    monkeypatch.setattr("retrieval.connections.os.access", lambda path, mode: False)
    with Store.open(tmp_path / "base") as reader:
        assert reader.state().n_documents == 1


def test_a_newer_format_is_one_line(store: Store, tmp_path: Path) -> None:
    store.close()
    path = tmp_path / "base" / "knowledge.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version=7")
    connection.close()
    (tmp_path / "base" / "knowledge.sqlite.seal").unlink()
    with pytest.raises(ValueError, match="has format 7, this sparsechat reads 1: update") as caught:
        Store.open(tmp_path / "base")
    assert "\n" not in str(caught.value)


def test_a_database_of_something_else_is_one_line(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "knowledge.sqlite")
    connection.execute("CREATE TABLE something (else_)")
    connection.execute("CREATE TABLE state (commit_number)")
    connection.commit()
    connection.close()
    with pytest.raises(ValueError, match="it was not made by sparsechat"):
        Store.open(tmp_path)


def test_a_file_that_others_hold_is_busy_and_not_damaged(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, document(0))
    store.close()
    file = tmp_path / "base" / database.FILE
    (tmp_path / "base" / commits.FILE).unlink()  # so that all rows are read
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        monkeypatch.setattr(connections, "BUSY_S", 0.1)
        with pytest.raises(BusyError, match="is locked by another process"):
            Store.open(tmp_path / "base")
        other.execute("ROLLBACK")
    with Store.open(tmp_path / "base") as whole:
        assert len(ids_of(whole, document(0).uri)) > 0


def test_checks_wait_for_a_writer_and_see_what_it_wrote(store: Store, tmp_path: Path) -> None:
    put(store, document(0))
    file = tmp_path / "base" / database.FILE
    with closing(connections.connect(file, "rw")) as connection, ThreadPoolExecutor(1) as pool:
        with store.db.transaction():
            found = pool.submit(lambda: list(checks.find(connection)))
            with pytest.raises(TimeoutError):
                found.result(timeout=0.2)
        assert found.result(timeout=20) == []


def test_a_row_is_checked_when_it_is_read(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, document(0))
    store.db.execute("UPDATE chunks SET body = 'another text' WHERE id = 2")
    assert store.chunks([1])[0].chunk_id == 1
    with pytest.raises(DamagedError, match="row 2 of chunks is not what was written"):
        store.chunks([1, 2])
    store.db.execute("UPDATE documents SET text = 'another text'")
    with pytest.raises(DamagedError, match="row 1 of documents"):
        store.documents([1])


def test_a_vector_is_checked_when_it_is_read(store: Store, encoder: HashingEncoder) -> None:
    put(store, document(0))
    embed(store, encoder)
    store.db.execute("UPDATE embeddings SET vector = zeroblob(128) WHERE id = 2")
    assert store.vectors([1]).shape == (1, 64)
    for read in (lambda: store.vectors([2]), lambda: store.delta(0)):
        with pytest.raises(DamagedError, match="row 2 of embeddings"):
            read()
