"""Milvus beyond the conformance suite: where it is, generations as collections, and its absence."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from retrieval import backends, generations, milvus_server
from retrieval.backends import Ids, IndexUnavailableError, Vectors, milvus
from retrieval.knowledge_base import KnowledgeBase
from retrieval.store import Store
from tests.retrieval.documents import document
from tests.retrieval.encoders import HashingEncoder


@pytest.fixture
def on_milvus(base: KnowledgeBase, milvus_url: str, encoder: HashingEncoder) -> KnowledgeBase:
    """Ten documents of three chunks with an index on Milvus."""
    base.use_backend("milvus", milvus_url)
    base.add_documents(document(i) for i in range(10))
    base.embed(encoder)
    base.build()
    base.use_encoder(encoder)
    return base


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """Which servers did not answer."""
    yield
    milvus_server._down.clear()


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server that takes connections and never answers."""
    monkeypatch.setattr(milvus_server, "CONNECT_S", 0.2)
    with closing(socket.socket()) as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        yield url


def collections(url: str, base: KnowledgeBase) -> list[str]:
    """Those of a base; tests share the server, so the base's generations say which they are."""
    with milvus_server.connected(url) as client:
        known = set(client.list_collections())
    named = [path.read_text() for path in base.folder.glob(f"gen-*/{milvus.FILE}")]
    return sorted(name for name in known if any(name in text for text in named))


def all_collections(url: str) -> set[str]:
    with milvus_server.connected(url) as client:
        return set(client.list_collections())


@pytest.mark.parametrize(
    ("url", "taken"),
    [
        ("http://localhost:19530", "http://localhost:19530"),
        ("https://milvus.example/", "https://milvus.example"),
        ("index.db", os.path.abspath("index.db")),
    ],
)
def test_an_address_is_a_url_or_a_path_made_absolute(url: str, taken: str) -> None:
    assert milvus.address(url) == taken


@pytest.mark.parametrize("url", ["gopher://x", "localhost:19530", "index", "http://a b", "\n.db"])
def test_what_is_no_address_is_refused_with_one_that_would_be(url: str) -> None:
    with pytest.raises(ValueError, match=r"no address of Milvus: http://HOST:19530"):
        milvus.address(url)


def test_a_token_does_not_stand_in_an_address() -> None:
    with pytest.raises(ValueError, match="SPARSECHAT_MILVUS_TOKEN"):
        milvus.address("http://root:secret@host:19530")


def test_the_address_may_stand_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(milvus.URL, raising=False)
    with pytest.raises(ValueError, match=r"--backend-url .* SPARSECHAT_MILVUS_URL"):
        milvus.address()
    monkeypatch.setenv(milvus.URL, "http://host:1")
    assert milvus.address() == "http://host:1"
    assert backends.spec_of("milvus") == "milvus http://host:1"


def test_faiss_takes_no_address(store: Store) -> None:
    with pytest.raises(ValueError, match="faiss has no server"):
        store.use_backend("faiss", "http://host:1")
    assert store.settings().backend == "faiss"


def test_kinds_follow_the_size() -> None:
    sizes = {50_000: "FLAT", 50_001: "HNSW", 10_000_000: "HNSW", 10_000_001: "DISKANN"}
    assert {n: milvus.choose(n)[0] for n in sizes} == sizes


def test_a_base_on_milvus_finds_what_one_on_faiss_finds(
    on_milvus: KnowledgeBase, encoder: HashingEncoder, tmp_path: Path, milvus_url: str
) -> None:
    info = on_milvus.show()
    assert (info.backend, info.kind, info.n_indexed) == (f"milvus {milvus_url}", "FLAT", 30)
    other = KnowledgeBase.create(tmp_path / "other")
    other.add_documents(document(i) for i in range(10))
    other.embed(encoder)
    other.build()
    other.use_encoder(encoder)
    for query in ("item5", "how the river came to be", "apple train"):
        one, two = (b.look_up(query, mode="dense", k=5) for b in (on_milvus, other))
        assert one.mode == two.mode == "dense"
        assert [p.chunk_ids for p in one.passages] == [p.chunk_ids for p in two.passages]
        np.testing.assert_allclose(
            [p.score for p in one.passages], [p.score for p in two.passages], atol=1e-4
        )
    other.close()


def test_a_new_generation_is_a_new_collection_and_the_old_one_goes(
    on_milvus: KnowledgeBase, encoder: HashingEncoder, milvus_url: str
) -> None:
    before = collections(milvus_url, on_milvus)
    assert len(before) == 1 and "_base_000001_" in before[0]
    assert on_milvus.build() == 1  # up to date
    on_milvus.delete(["/library/3.txt"])
    on_milvus.build()
    on_milvus.look_up("item5")  # the reader lets the old one go
    on_milvus.close()
    on_milvus.compact()
    after = collections(milvus_url, on_milvus)
    assert len(after) == 1 and "_base_000002_" in after[0]
    assert before[0] not in all_collections(milvus_url)


def test_removing_a_base_drops_its_collections(on_milvus: KnowledgeBase, milvus_url: str) -> None:
    before = collections(milvus_url, on_milvus)
    on_milvus.close()
    KnowledgeBase.remove(on_milvus.folder)
    assert before and not set(before) & all_collections(milvus_url)
    assert not on_milvus.folder.exists()


def test_a_build_that_is_killed_leaves_no_collection_after_the_next(
    on_milvus: KnowledgeBase, milvus_url: str, rng: np.random.Generator
) -> None:
    def vectors() -> Iterator[tuple[Ids, Vectors]]:
        yield np.arange(5), np.eye(5, 64, dtype=np.float32)
        raise KeyboardInterrupt

    draft = on_milvus.folder / "gen-000077.tmp"  # as a kill leaves it
    draft.mkdir()
    with pytest.raises(KeyboardInterrupt):
        milvus.build(draft, vectors(), 5, 64, url=milvus_url)
    left = [name for name in all_collections(milvus_url) if "_000077_" in name]
    assert len(left) == 1
    generations.sweep(on_milvus.folder)
    assert left[0] not in all_collections(milvus_url)
    assert not draft.exists()


def test_a_build_that_fails_drops_what_it_sent(on_milvus: KnowledgeBase, milvus_url: str) -> None:
    before = all_collections(milvus_url)

    def fail(folder: Path) -> dict[str, object]:
        milvus.build(folder, [(np.arange(3), np.eye(3, dtype=np.float32))], 3, 3, url=milvus_url)
        assert len(all_collections(milvus_url)) == len(before) + 1
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        generations.publish(on_milvus.folder, fail, {})
    assert all_collections(milvus_url) == before


def test_a_collection_that_is_gone_is_built_again(
    on_milvus: KnowledgeBase, milvus_url: str
) -> None:
    on_milvus.look_up("item5")
    with milvus_server.connected(milvus_url) as client:
        client.drop_collection(collections(milvus_url, on_milvus)[0])
    found = on_milvus.look_up("item5")  # this reader had it open
    assert found.mode == "lexical" and (found.passages or found.candidates)
    assert "kb build" in found.why or "cannot be used" in found.why
    milvus_server._down.clear()
    assert on_milvus.verify()[0].where.startswith("gen-")
    on_milvus.close()
    assert on_milvus.look_up("item5").mode == "hybrid"
    assert len(collections(milvus_url, on_milvus)) == 1


def test_a_search_goes_on_with_words_while_the_server_is_away(
    on_milvus: KnowledgeBase, monkeypatch: pytest.MonkeyPatch, elsewhere: str
) -> None:
    on_milvus.close()
    monkeypatch.setattr(
        milvus_server, "client", lambda url, real=milvus_server.client: real(elsewhere)
    )
    found = on_milvus.look_up("item5")
    assert found.mode == "lexical" and (found.passages or found.candidates)
    assert found.why.startswith("Milvus at") and "\n" not in found.why
    assert found.why == on_milvus.look_up("item5").why  # it is not asked again at once
    monkeypatch.undo()
    milvus_server._down.clear()
    assert on_milvus.look_up("item5").mode == "hybrid"


def test_a_build_without_a_server_is_one_line_and_changes_nothing(
    full: KnowledgeBase, encoder: HashingEncoder, elsewhere: str
) -> None:
    full.use_encoder(encoder)
    full.use_backend("milvus", elsewhere)
    with pytest.raises(IndexUnavailableError, match=f"Milvus at {elsewhere} cannot be used"):
        full.build()
    assert full.show().generation == 1
    assert full.look_up("item5").mode == "hybrid"  # with the index of before


def test_a_missing_package_is_named_with_the_command(
    on_milvus: KnowledgeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_milvus.close()
    monkeypatch.setitem(__import__("sys").modules, "pymilvus", None)
    found = on_milvus.look_up("item5")
    assert found.mode == "lexical" and "pip install 'sparsechat[milvus]'" in found.why


def test_more_excluded_than_a_filter_names_never_come_back(
    tmp_path: Path, milvus_url: str, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    monkeypatch.setattr(milvus, "LISTED", 50)
    rows = rng.standard_normal((400, 16)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    ids = np.arange(400) * 3
    manifest = milvus.build(tmp_path, [(ids, rows)], 400, 16, url=milvus_url)
    with closing(milvus.open(tmp_path, manifest)) as index:
        found = index.search(rows[:2], 20, excluded=ids[:300])[0]
        best = np.argsort(-(rows[:2] @ rows[300:].T), axis=1)[:, :20]
        np.testing.assert_array_equal(found, ids[300:][best])
        found = index.search(rows[:2], 20, allowed=ids[:300])[0]  # six filters
        best = np.argsort(-(rows[:2] @ rows[:300].T), axis=1)[:, :20]
        np.testing.assert_array_equal(found, ids[best])


def test_a_connection_that_is_given_up_at_once_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch, milvus_url: str
) -> None:
    import pymilvus

    real, answers = pymilvus.MilvusClient, []

    def busy(*arguments: object, **named: object) -> pymilvus.MilvusClient:
        answers.append(len(answers))
        if len(answers) == 1:
            raise pymilvus.MilvusException(message="too many pings")
        return real(*arguments, **named)

    monkeypatch.setattr(pymilvus, "MilvusClient", busy)
    with milvus_server.connected(milvus_url) as client:
        assert isinstance(client.list_collections(), list)
    assert len(answers) == 2
