"""A base from its documents to passages, with the default backend and the real search."""

from __future__ import annotations

from pathlib import Path

import pytest

from retrieval import fusion
from retrieval.encoder import EncoderMissingError
from retrieval.knowledge_base import KnowledgeBase
from retrieval.search import MODES, Mode
from retrieval.store import Store
from tests.retrieval.documents import document
from tests.retrieval.encoders import HashingEncoder


def test_words_are_found_from_the_first_commit_on(base: KnowledgeBase) -> None:
    base.add_documents(document(i) for i in range(5))
    found = base.look_up("item9", k=1)
    assert found.mode == "lexical" and "no encoder" in found.why
    assert [p.uri for p in found.passages] == ["/library/1.txt"]


def test_vectors_join_in_as_they_come(base: KnowledgeBase, encoder: HashingEncoder) -> None:
    base.add_documents(document(i) for i in range(5))
    base.use_encoder(encoder)
    assert base.look_up("item9").mode == "lexical"
    base.embed(encoder)
    assert base.look_up("item9").mode == "hybrid"
    without_index = base.look_up("how the apple came to be", mode="dense")
    base.build()
    with_index = base.look_up("how the apple came to be", mode="dense")
    assert [p.chunk_ids for p in with_index.passages] == [
        p.chunk_ids for p in without_index.passages
    ]
    assert with_index.why == ""


def test_every_passage_is_a_piece_of_its_document(full: KnowledgeBase) -> None:
    passages = full.search("how the river came to be", k=9)
    assert passages
    with Store.open(full.folder) as store:
        for passage in passages:
            (stored,) = store.documents([passage.document_id])
            assert passage.text == stored.text[passage.start : passage.end]
            assert (passage.uri, passage.title) == (stored.uri, stored.title)


def test_a_reader_sees_each_change_on_its_next_search(
    full: KnowledgeBase, encoder: HashingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fusion, "threshold", lambda *_: 0.0)  # measured with a real encoder
    reader = KnowledgeBase.open(full.folder, encoder)

    def finds(word: str, mode: Mode = "hybrid") -> bool:
        return any(f"{word} " in p.text for p in reader.search(word, 1, mode=mode, w=0))

    assert finds("item9") and not finds("item900")
    full.delete(["/library/1.txt"])
    assert not finds("item9")
    full.add_documents([document(100)])
    assert finds("item900", "lexical")
    full.embed(encoder)
    assert finds("item900")
    full.build()
    assert finds("item900") and not finds("item9") and finds("item20")
    reader.close()


def test_an_encoder_that_is_no_longer_the_bases_is_not_used(
    full: KnowledgeBase, encoder: HashingEncoder
) -> None:
    reader = KnowledgeBase.open(full.folder, encoder)
    assert reader.look_up("item9").mode == "hybrid"
    full.embed(HashingEncoder(16, "other"))
    assert reader.look_up("item9").mode == "lexical"
    assert full.look_up("item9").mode == "hybrid"
    reader.close()


def test_a_filter_holds_for_words_and_vectors(full: KnowledgeBase) -> None:
    for mode in MODES:
        found = full.search("how the river came to be", k=9, mode=mode, filter={"shelf": "1"})
        assert found
        assert {p.uri for p in found} <= {f"/library/{i}.txt" for i in (1, 4, 7)}


def test_a_base_loads_the_encoder_it_names_when_a_search_wants_vectors(
    full: KnowledgeBase, encoder: HashingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str | Path] = []

    def load(name: str | Path) -> HashingEncoder:
        asked.append(name)
        return encoder

    monkeypatch.setattr("retrieval.encoder.load_encoder", load)
    reader = KnowledgeBase.open(full.folder)
    assert reader.look_up("item9", mode="lexical").mode == "lexical" and asked == []
    assert [reader.look_up("item9").mode for _ in range(2)] == ["hybrid", "hybrid"]
    assert asked == ["minilm"]
    assert KnowledgeBase.open(full.folder, loads_encoder=False).look_up("x").mode == "lexical"


def test_without_the_encoder_a_search_says_why_it_is_lexical(
    full: KnowledgeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str | Path) -> HashingEncoder:
        raise EncoderMissingError("the encoder minilm is not installed")

    monkeypatch.setattr("retrieval.encoder.load_encoder", missing)
    found = KnowledgeBase.open(full.folder).look_up("item9")
    assert (found.mode, found.why) == ("lexical", "the encoder minilm is not installed")
