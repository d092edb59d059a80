"""What can happen to the files of a base: kills, flipped bytes, lost ends, other programs."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from data.documents import Document
from retrieval import commits, database, generations, seal
from retrieval.damage import DamagedError
from retrieval.knowledge_base import KnowledgeBase
from retrieval.main_file import MainFile
from retrieval.store import Store
from tests.retrieval import plain_backend
from tests.retrieval.documents import document
from tests.retrieval.encoders import HashingEncoder


@pytest.fixture(autouse=True)
def _backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrieval.backends.backend", lambda name: plain_backend)


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    """Every test is a new process to what is remembered for one."""
    yield
    database._whole.clear()
    generations._verified.clear()


@pytest.fixture(scope="module")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("knowledge") / "base"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("retrieval.backends.backend", lambda name: plain_backend)
        base = KnowledgeBase.create(folder)
        base.add_documents(document(i) for i in range(12))
        base.embed(HashingEncoder())
        base.build()
        base.close()
    return folder


@pytest.fixture
def folder(_made: Path, tmp_path: Path) -> Path:
    """A closed base of twelve documents with an index."""
    return Path(shutil.copytree(_made, tmp_path / "base"))


def flip(path: Path, at: int, mask: int = 1) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= mask
    path.write_bytes(content)


def broken(path: Path, always: bool = False) -> list[int] | None:
    file = MainFile(path)
    try:
        n_pages = file.stamp()[0] // database.PAGE_SIZE
        return seal.broken_pages(path, file, n_pages, always)
    finally:
        file.close()


def texts(folder: Path) -> dict[str, str]:
    with Store.open(folder) as store:
        return {d.uri: d.text for d in store.documents(range(1, 40))}


def main_file(folder: Path) -> Path:
    return folder / "knowledge.sqlite"


# the seal


def test_every_page_of_the_database_is_under_the_seal(folder: Path) -> None:
    path, dice = main_file(folder), random.Random(0)
    whole = path.read_bytes()
    n_pages = len(whole) // database.PAGE_SIZE
    for page in range(n_pages):
        flip(path, page * database.PAGE_SIZE + dice.randrange(database.PAGE_SIZE))
        assert broken(path) == [page]
        path.write_bytes(whole)
    assert broken(path) == []


def test_changed_bytes_are_noticed_or_harmless(folder: Path, tmp_path: Path) -> None:
    dice, expected, n_noticed = random.Random(1), texts(folder), 0
    for i in range(40):
        copy = Path(shutil.copytree(folder, tmp_path / f"copy{i}"))
        size = main_file(copy).stat().st_size
        flip(main_file(copy), dice.randrange(size), dice.randrange(1, 256))
        try:
            assert texts(copy) == expected
        except (DamagedError, ValueError) as error:
            assert "\n" not in str(error)
            n_noticed += 1
        shutil.rmtree(copy)
    assert n_noticed > 10


def test_a_flip_in_unused_space_is_harmless_and_sealed_anew(folder: Path) -> None:
    path = main_file(folder)
    # between the cell pointers and the cells of the state's page nothing is stored
    connection = sqlite3.connect(path)
    root = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'state'").fetchone()
    connection.close()
    flip(path, (root[0] - 1) * database.PAGE_SIZE + 1000)
    assert len(texts(folder)) == 12
    assert seal.load(path) is not None
    assert broken(path) == []


def test_the_database_is_read_through_once_a_process(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    real = seal.broken_pages
    monkeypatch.setattr(seal, "broken_pages", lambda *a: calls.append(a) or real(*a))
    for _ in range(3):
        texts(folder)
    assert len(calls) == 1
    with Store.open(folder, write=True) as store:
        store.use_encoder("other", 3)
    texts(folder)
    assert len(calls) == 1  # our own checkpoint is no foreign change


def test_a_large_file_with_size_and_time_of_its_seal_is_not_read_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = main_file(folder)
    database.make_seal(path)
    monkeypatch.setattr(seal, "LARGE", 1)
    monkeypatch.setattr(seal, "_changed", lambda *a: pytest.fail("it was read"))
    assert broken(path) == []
    with pytest.raises(pytest.fail.Exception):
        broken(path, always=True)


@pytest.mark.parametrize("damage", ["gone", "flipped", "empty", "cut"])
def test_a_damaged_seal_is_made_anew_after_every_row_was_read(folder: Path, damage: str) -> None:
    path = main_file(folder).with_name("knowledge.sqlite.seal")
    if damage == "gone":
        path.unlink()
    elif damage == "flipped":
        flip(path, path.stat().st_size // 2)
    else:
        path.write_bytes(b"" if damage == "empty" else path.read_bytes()[:-7])
    assert len(texts(folder)) == 12
    assert seal.load(main_file(folder)) is not None


def test_a_checkpoint_by_another_program_is_accepted_after_every_row_was_read(
    folder: Path,
) -> None:
    with Store.open(folder) as reader, reader.snapshot():
        with Store.open(folder, write=True) as store:
            store.use_encoder("other", 3)  # stays in the log: the reader needs the older state
    assert main_file(folder).with_name("knowledge.sqlite-wal").stat().st_size > 0
    foreign = sqlite3.connect(main_file(folder))
    foreign.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    foreign.close()
    assert len(texts(folder)) == 12
    with Store.open(folder) as store:
        assert store.settings().encoder_id == "other"


# what the rows say, where the seal says that something changed


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE documents SET text = text || '!' WHERE id = 3", "row 3 of documents"),
        ("UPDATE chunks SET ord = ord + 1 WHERE id = 5", "row 5 of chunks"),
        ("UPDATE embeddings SET vector = zeroblob(128) WHERE id = 2", "row 2 of embeddings"),
        ("DELETE FROM documents WHERE id = 12", "numbers of rows"),
        ("DELETE FROM chunks WHERE id = 36", "full-text index|pieces of its text"),
        ("DELETE FROM embeddings WHERE id = 2", "without a vector"),
        ("INSERT INTO pending VALUES (3)", "without a vector"),
        ("DELETE FROM state", "row of state is gone|rows of settings or state"),
        ("INSERT INTO fts (fts, rowid, title, body) VALUES ('delete', 4, 'x', 'y')", "full-text"),
        ("DROP INDEX chunks_by_text", "not those of this version"),
        ("UPDATE state SET n_chunks = 35", "row 1 of state"),
    ],
)
def test_what_another_program_changed_is_noticed(
    folder: Path, statement: str, message: str
) -> None:
    foreign = sqlite3.connect(main_file(folder))
    foreign.execute(statement)
    foreign.commit()
    foreign.close()
    with pytest.raises(DamagedError, match=message) as caught:
        texts(folder)
    assert "\n" not in str(caught.value)
    assert "`sparsechat kb verify base --repair`" in str(caught.value)


# the log


def left_by_a_kill(folder: Path, tmp_path: Path) -> Path:
    """A copy of the base while its last commits are in the log alone."""
    with Store.open(folder, write=True) as store:
        for i in range(4):
            store.use_encoder(f"encoder-{i}", 3)
        return Path(shutil.copytree(folder, tmp_path / "left"))


def test_commits_in_the_log_are_there_after_a_kill(folder: Path, tmp_path: Path) -> None:
    left = left_by_a_kill(folder, tmp_path)
    with Store.open(left) as store:
        assert store.settings().encoder_id == "encoder-3"
    assert KnowledgeBase.open(left).verify() == []


def test_a_damaged_log_does_not_take_back_commits_unnoticed(folder: Path, tmp_path: Path) -> None:
    left = left_by_a_kill(folder, tmp_path)
    log = left / "knowledge.sqlite-wal"
    whole, dice = log.read_bytes(), random.Random(2)
    for i in range(9):
        copy = Path(shutil.copytree(left, tmp_path / f"copy{i}"))
        at = dice.randrange(len(whole))
        if i % 3:
            flip(copy / log.name, at)
        else:
            (copy / log.name).write_bytes(whole[:at])
        with pytest.raises(DamagedError, match=r"knowledge\.sqlite-wal: .* commits were made"):
            texts(copy)
        (problem,) = KnowledgeBase(copy).verify(repair=True)
        assert problem.repaired
        assert len(texts(copy)) == 12
        shutil.rmtree(copy)


@pytest.mark.parametrize("damage", ["gone", "flipped", "smaller"])
def test_a_damaged_note_of_the_last_commit_is_made_anew(folder: Path, damage: str) -> None:
    path = folder / "COMMITTED"
    if damage == "gone":
        path.unlink()
    elif damage == "smaller":
        commits.note(folder, 1)
    else:
        path.write_text(json.dumps({"commit": 999, "crc": 5}))
    assert len(texts(folder)) == 12
    with Store.open(folder) as store:
        assert commits.noted(folder) in (1, store.state().commit)


# repair


def test_a_damaged_text_costs_its_document_and_sync_reads_it_again(tmp_path: Path) -> None:
    library = tmp_path / "library"
    library.mkdir()
    for i in range(8):
        (library / f"{i}.txt").write_text(document(i).text)
    base = KnowledgeBase.create(tmp_path / "base")
    base.add([library])
    base.embed(HashingEncoder())
    base.build()
    base.close()
    before = texts(base.folder)
    path = main_file(base.folder)
    for match in (b"item9 ", b"item10 "):  # in the document's row or in its chunk's
        flip(path, path.read_bytes().index(match) + 1)
    (problem,) = base.verify()
    assert not problem.repaired and problem.where == "knowledge.sqlite"
    (problem,) = base.verify(repair=True)
    assert problem.repaired and "7 documents were taken over, 1 lost" in problem.way_out
    assert len(list(base.folder.glob("knowledge.sqlite.damaged-*"))) == 1
    assert base.verify() == []
    assert len(texts(base.folder)) == 7
    report = base.sync()
    assert (report.added, report.updated, report.unchanged) == (1, 0, 7)
    assert texts(base.folder) == before
    base.close()


@pytest.mark.parametrize("size", [0, 50, 5_000, 100_000])
def test_a_database_that_lost_its_end_is_repaired(folder: Path, size: int) -> None:
    path = main_file(folder)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DamagedError):
        texts(folder)
    base = KnowledgeBase.open(folder)  # opens, so that it can be repaired
    base.verify(repair=True)
    assert base.verify() == []
    found = texts(folder)
    assert found.items() <= {d.uri: d.text for d in map(document, range(12))}.items()
    base.add_documents(document(i) for i in range(12))
    assert len(texts(folder)) == 12
    base.close()


def test_a_lost_header_costs_nothing(folder: Path) -> None:
    before = texts(folder)
    with main_file(folder).open("rb+") as file:
        file.write(bytes(100))
    with pytest.raises(DamagedError):
        texts(folder)
    (problem,) = KnowledgeBase(folder).verify(repair=True)
    assert "12 documents were taken over, 0 lost" in problem.way_out
    assert texts(folder) == before


def test_a_database_that_is_gone_is_said_and_made_anew(folder: Path) -> None:
    main_file(folder).unlink()
    with pytest.raises(DamagedError, match=r"knowledge\.sqlite: it is gone"):
        texts(folder)
    base = KnowledgeBase.open(folder)
    assert [p.what for p in base.verify(repair=True)] == ["it is gone"]
    assert texts(folder) == {}
    base.close()


def test_a_repair_that_was_killed_is_finished_by_the_next_open(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flip(main_file(folder), 100_000)
    with monkeypatch.context() as patch:
        patch.setattr("retrieval.salvage.finish", lambda folder: (_ for _ in ()).throw(SystemExit))
        with pytest.raises(SystemExit):
            KnowledgeBase(folder).verify(repair=True)
    assert not main_file(folder).exists()
    assert len(texts(folder)) >= 11
    assert KnowledgeBase.open(folder).verify() == []


# the index


def damage_index(folder: Path) -> None:
    flip(folder / "gen-000001" / "vectors.npy", 1000)


def test_a_damaged_index_is_set_aside_and_made_anew_by_the_next_search(folder: Path) -> None:
    damage_index(folder)
    base = KnowledgeBase.open(folder)
    with base._reader.view() as (store, generation):
        assert generation is not None and generation.number == 2
        assert generation.search(store.vectors([5]), 1)[0].tolist() == [[5]]
    assert len(list(folder.glob("gen-000001.damaged-*"))) == 1
    base.close()


def test_a_damaged_index_is_not_searched_while_another_writes(folder: Path) -> None:
    damage_index(folder)
    base = KnowledgeBase.open(folder)
    with Store.open(folder, write=True):
        with base._reader.view() as (_, generation):
            assert generation is None
    with base._reader.view() as (_, generation):
        assert generation is not None
    base.close()


def test_a_large_index_is_left_to_the_build(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrieval.reader.HEALED_AT_ONCE", 5)
    damage_index(folder)
    base = KnowledgeBase.open(folder)
    with base._reader.view() as (_, generation):
        assert generation is None
    assert generations.current(folder) is None
    assert base.build() == 2
    base.close()


def test_verify_finds_a_damaged_index_and_repairs_it(folder: Path) -> None:
    damage_index(folder)
    base = KnowledgeBase(folder)
    (problem,) = base.verify()
    assert problem.where == "gen-000001" and "SHA-256" in problem.what and not problem.repaired
    assert generations.current(folder) == "gen-000001"  # looking changes nothing
    assert [p.repaired for p in base.verify(repair=True)] == [True]
    assert base.verify() == []
    base.close()


def test_a_document_is_never_half(folder: Path) -> None:
    base = KnowledgeBase.open(folder)
    with pytest.raises(RuntimeError):
        with base._writing() as store, store.db.transaction() as counts:
            from retrieval import changes

            changes.put_document(store.db, counts, Document("/x", "X", "Text."), [], sha256=b"")
            raise RuntimeError
    assert "/x" not in texts(folder)
    assert base.verify() == []
    base.close()
