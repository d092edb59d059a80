from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from data.documents import Document
from retrieval import fusion, search
from retrieval.knowledge_base import KnowledgeBase
from retrieval.passages import Hit
from retrieval.search import Search, look_up
from tests.retrieval.documents import document, in_sections
from tests.retrieval.encoders import HashingEncoder

PARAGRAPHS = {
    "/zurich": ("Zurich", "Zurich is the largest city of Switzerland and lies on a lake."),
    "/bread": ("Bread", "Bread is baked from flour, water and yeast in an oven."),
    "/jazz": ("Jazz", "Jazz grew up in New Orleans among brass bands."),
    "/moon": ("Moon", "The moon moves around the earth in about four weeks."),
}


@pytest.fixture
def library(base: KnowledgeBase) -> KnowledgeBase:
    """Four documents of one chunk each, ids 1 to 4, without vectors."""
    base.add_documents(in_sections(u, title, [text]) for u, (title, text) in PARAGRAPHS.items())
    return base


@pytest.fixture
def indexed(library: KnowledgeBase, encoder: HashingEncoder) -> KnowledgeBase:
    """The same with vectors and an index."""
    library.embed(encoder)
    library.build()
    return library


def everything(base: KnowledgeBase, query: str, **options: object) -> Search:
    """A search without a threshold."""
    with base._reader.view() as (store, generation):
        return look_up(store, generation, base._encoder, query, threshold=0, **options)  # type: ignore[arg-type]


def uris(found: Search) -> list[str]:
    """Where the passages come from, best first."""
    return [passage.uri for passage in found.passages]


@pytest.mark.parametrize("mode", search.MODES)
def test_every_mode_finds_what_is_asked_for(indexed: KnowledgeBase, mode: search.Mode) -> None:
    found = everything(indexed, "What is bread baked from?", mode=mode)
    assert uris(found)[0] == "/bread"
    assert (found.mode, found.why) == (mode, "")
    assert found.query == "What is bread baked from?"
    assert [p.score for p in found.passages] == sorted(p.score for p in found.passages)[::-1]


def test_a_passage_shows_what_both_legs_said(indexed: KnowledgeBase) -> None:
    best = everything(indexed, "bread flour").passages[0]
    assert best.dense is not None and -1 <= best.dense <= 1
    assert best.lexical is not None and best.lexical > 0
    assert (best.dense_rank, best.lexical_rank) == (1, 1)
    far = everything(indexed, "bread flour", k=4).passages[-1]
    assert far.dense is not None and (far.lexical, far.lexical_rank) == (None, None)


def test_a_leg_that_was_not_asked_says_nothing(indexed: KnowledgeBase) -> None:
    words = everything(indexed, "bread flour", mode="lexical").passages[0]
    assert (words.dense, words.dense_rank, words.lexical_rank) == (None, None, 1)
    near = everything(indexed, "bread flour", mode="dense").passages[0]
    assert (near.lexical, near.lexical_rank, near.dense_rank) == (None, None, 1)


def test_cosines_are_those_of_the_stored_vectors(
    indexed: KnowledgeBase, encoder: HashingEncoder
) -> None:
    (query,) = encoder.encode(["the moon"])
    for passage in everything(indexed, "the moon", k=4).passages:
        (vector,) = indexed._reader.store().vectors([passage.chunk_id])
        assert passage.dense == pytest.approx(float(vector @ query), abs=1e-6)


def test_without_an_encoder_words_are_searched_and_that_is_said(library: KnowledgeBase) -> None:
    found = everything(library, "the moon and the earth")
    assert uris(found) == ["/moon"]
    assert found.mode == "lexical"
    assert found.why == "there is no encoder, so only words are searched for"
    assert everything(library, "the moon", mode="dense").mode == "lexical"
    assert everything(library, "the moon", mode="lexical").why == ""


def test_while_vectors_are_built_both_legs_search_what_there_is(
    library: KnowledgeBase, encoder: HashingEncoder
) -> None:
    store = library._reader.store()
    with library._writing() as writing:
        writing.use_encoder(encoder.encoder_id, encoder.dimension)
    library.use_encoder(encoder)
    found = everything(library, "jazz")
    assert (found.mode, found.why) == ("lexical", "vectors are still being built: 0 of 4")
    with library._writing() as writing:
        (sha, text), *_ = writing.unembedded(4)
        writing.put_vectors([sha], encoder.encode([text]))
    assert store.state().n_pending == 3
    found = everything(library, "jazz and Zurich", k=4)
    assert (found.mode, found.why) == ("hybrid", "vectors are still being built: 1 of 4")
    assert {"/zurich", "/jazz"} <= set(uris(found))


def test_what_has_no_index_yet_is_found_by_its_vector(
    indexed: KnowledgeBase, encoder: HashingEncoder
) -> None:
    indexed.add_documents([Document("/tea", "Tea", "Leaves in hot water.")])
    indexed.embed(encoder)
    found = everything(indexed, "leaves hot water", mode="dense")
    assert uris(found)[0] == "/tea"
    assert {"/tea", *PARAGRAPHS} >= set(uris(found))


def test_without_any_index_all_vectors_are_compared(
    library: KnowledgeBase, encoder: HashingEncoder
) -> None:
    library.embed(encoder)
    assert uris(everything(library, "brass bands in New Orleans", mode="dense"))[0] == "/jazz"


def test_what_was_deleted_or_changed_never_comes_back(
    indexed: KnowledgeBase, encoder: HashingEncoder
) -> None:
    indexed.delete(["/bread"])
    for mode in search.MODES:
        assert "/bread" not in uris(everything(indexed, "bread flour water", k=5, mode=mode))
    indexed.add_documents([Document("/moon", "Moon", "It is far away and cold.")])
    indexed.embed(encoder)
    for mode in search.MODES:
        texts = [p.text for p in everything(indexed, "moon earth weeks", k=5, mode=mode).passages]
        assert not any("four weeks" in text for text in texts)


@pytest.mark.parametrize("mode", search.MODES)
def test_a_filter_holds_in_every_mode(indexed: KnowledgeBase, mode: search.Mode) -> None:
    found = everything(indexed, "city lake bread oven", k=5, mode=mode, filter="/z*")
    assert uris(found) == ["/zurich"]
    assert not everything(indexed, "city bread", mode=mode, filter="/nowhere/*").passages
    by_title = everything(indexed, "city lake bread", mode=mode, filter={"title": "Bread"})
    assert uris(by_title) == ["/bread"]


@pytest.mark.parametrize("query", ["", "   ", "\n"])
def test_an_empty_query_finds_nothing(indexed: KnowledgeBase, query: str) -> None:
    found = everything(indexed, query)
    assert not found.passages and not found.candidates


def test_a_query_of_stop_words_is_searched_by_its_vector(indexed: KnowledgeBase) -> None:
    found = everything(indexed, "what is it")
    assert found.passages and all(p.lexical is None for p in found.passages)


@pytest.mark.parametrize("query", ['"', "a AND (", "title:x", "\x00", "\udc80 moon", "x" * 9000])
def test_any_text_is_a_query(indexed: KnowledgeBase, query: str) -> None:
    everything(indexed, query)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k is the number of passages and at least 1, not 0"),
        ({"w": -1}, "w is the number of neighbours a side and at least 0, not -1"),
        ({"mode": "both"}, "no search mode 'both'; one of hybrid, dense, lexical"),
    ],
)
def test_numbers_without_sense_are_refused(
    indexed: KnowledgeBase, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        everything(indexed, "x", **options)


def test_below_the_threshold_nothing_is_found_and_the_rest_is_shown(
    indexed: KnowledgeBase,
) -> None:
    with indexed._reader.view() as (store, generation):
        found = look_up(store, generation, indexed._encoder, "bread flour", threshold=1.0)
    assert found.passages == ()
    assert found.candidates[0].uri == "/bread"
    assert found.threshold == 1.0
    usual = indexed.look_up("bread flour")
    assert 0 < usual.threshold < fusion.THRESHOLD
    assert all(passage.score >= usual.threshold for passage in usual.passages)


def test_candidates_go_on_where_the_passages_end(full: KnowledgeBase) -> None:
    found = everything(full, "the apple and the river", k=3, w=0)
    scores = [p.score for p in (*found.passages, *found.candidates)]
    assert len(found.passages) == 3 and len(found.candidates) == 3 + search.CANDIDATES_SHOWN
    assert scores == sorted(scores, reverse=True)
    ids = [p.chunk_id for p in (*found.passages, *found.candidates)]
    assert len(set(ids)) == len(ids)
    assert all(len(p.chunk_ids) == 1 for p in found.candidates)


def test_more_than_a_legs_usual_depth_can_be_asked_for(
    base: KnowledgeBase, encoder: HashingEncoder
) -> None:
    base.add_documents(document(i) for i in range(30))
    base.embed(encoder)
    base.build()
    assert len(everything(base, "the collection", k=70, w=0).passages) == 70


def test_an_encoder_may_treat_questions_in_its_own_way(
    library: KnowledgeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Asking(HashingEncoder):
        def encode_query(self, texts: Sequence[str]) -> np.ndarray:
            return self.encode(["jazz orleans brass" for _ in texts])

    encoder = Asking()
    library.embed(encoder)
    assert uris(everything(library, "bread", mode="dense"))[0] == "/jazz"


def test_a_reranker_has_the_last_word(indexed: KnowledgeBase) -> None:
    class Backwards:
        def rerank(self, query: str, hits: Sequence[Hit]) -> list[Hit]:
            assert query == "bread flour"
            return [Hit(hit.chunk, i / 10) for i, hit in enumerate(hits)][::-1]

    found = everything(indexed, "bread flour", reranker=Backwards())
    assert uris(found)[0] != "/bread"
    assert "rerank" in found.timings


def test_every_part_is_timed(indexed: KnowledgeBase) -> None:
    timings = everything(indexed, "bread").timings
    assert set(timings) == {"filter", "encode", "dense", "lexical", "read", "fusion", "passages"}
    assert all(seconds >= 0 for seconds in timings.values())


def test_only_the_query_is_encoded(indexed: KnowledgeBase, encoder: HashingEncoder) -> None:
    encoder.encoded.clear()
    everything(indexed, "bread flour", w=5, w_th=-1)
    assert encoder.encoded == ["bread flour"]
