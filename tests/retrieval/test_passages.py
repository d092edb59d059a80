from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from data.documents import Document, Section
from retrieval.knowledge_base import KnowledgeBase
from retrieval.passages import Hit, Passage, passages_of
from retrieval.store import Store
from tests.retrieval.documents import document, in_sections
from tests.retrieval.encoders import HashingEncoder

ALIKE = "alpha beta gamma delta"


def hit(base: KnowledgeBase, chunk_id: int, score: float = 0.9) -> Hit:
    """A hit on a chunk that is there."""
    (chunk,) = store_of(base).chunks([chunk_id])
    return Hit(chunk, score)


def store_of(base: KnowledgeBase) -> Store:
    """The store that the base reads."""
    return base._reader.store()


def grown(
    base: KnowledgeBase, hits: list[Hit], k: int = 5, w: int = 5, w_th: float = 0.5
) -> list[Passage]:
    """The passages that the hits make, checked against the documents' texts."""
    found = passages_of(store_of(base), hits, k, w, w_th)
    for passage in found:
        (stored,) = store_of(base).documents([passage.document_id])
        assert passage.text == stored.text[passage.start : passage.end]
    return found


@pytest.fixture
def sections(base: KnowledgeBase, encoder: HashingEncoder) -> KnowledgeBase:
    """Chunks 1 to 7 and 8 to 10; 3 to 5 are about one thing, and so are 7 and 8."""
    like = [f"{ALIKE} {i}." for i in range(3)]
    first = ["One thing.", "Other matter entirely.", *like, "Quite different words.", ALIKE]
    base.add_documents(
        [
            in_sections("/a", "A", first),
            in_sections("/b", "B", [ALIKE, "Nothing of that kind.", "Last words here."]),
        ]
    )
    base.embed(encoder)
    return base


def test_a_hit_grows_by_neighbours_that_are_like_it_without_encoding_anything(
    sections: KnowledgeBase, encoder: HashingEncoder
) -> None:
    encoder.encoded.clear()
    (passage,) = grown(sections, [hit(sections, 4)])
    assert passage.chunk_ids == (3, 4, 5)
    assert passage.text.startswith(ALIKE + " 0.") and passage.text.endswith("2.")
    assert passage.chunk_id == 4
    assert encoder.encoded == []


def test_growing_stops_at_the_first_neighbour_that_is_not_like_it(sections: KnowledgeBase) -> None:
    (passage,) = grown(sections, [hit(sections, 7)])
    assert passage.chunk_ids == (7,)  # 5 is like it, 6 between them is not


def test_a_passage_never_leaves_its_document(sections: KnowledgeBase) -> None:
    assert grown(sections, [hit(sections, 7)], w_th=-1)[0].chunk_ids == (2, 3, 4, 5, 6, 7)
    assert grown(sections, [hit(sections, 8)], w_th=-1)[0].chunk_ids == (8, 9, 10)


def test_a_passage_grows_by_w_chunks_a_side(sections: KnowledgeBase) -> None:
    assert grown(sections, [hit(sections, 4)], w=0)[0].chunk_ids == (4,)
    assert grown(sections, [hit(sections, 4)], w=2, w_th=-1)[0].chunk_ids == (2, 3, 4, 5, 6)


def test_a_passage_never_leaves_its_page(base: KnowledgeBase, encoder: HashingEncoder) -> None:
    text = f"{ALIKE}\n{ALIKE}\n{ALIKE}"
    n = len(ALIKE)
    pages = tuple(Section(i * (n + 1), i * (n + 1) + n, page=1 + i // 2) for i in range(3))
    base.add_documents([Document("/pdf", "Pages", text, pages)])
    base.embed(encoder)
    (passage,) = grown(base, [hit(base, 1)])
    assert passage.chunk_ids == (1, 2)
    assert passage.page == 1


def test_without_vectors_a_passage_is_its_hit(base: KnowledgeBase) -> None:
    base.add_documents([document(0)])
    assert grown(base, [hit(base, 2)], w_th=-1)[0].chunk_ids == (2,)


def test_hits_in_one_stretch_become_one_passage_of_the_best(sections: KnowledgeBase) -> None:
    hits = [hit(sections, 9, 0.9), hit(sections, 5, 0.8), hit(sections, 3, 0.7)]
    first, second = grown(sections, hits)
    assert (first.chunk_ids, second.chunk_ids) == ((9,), (3, 4, 5))
    assert (second.chunk_id, second.score) == (5, 0.8)


def test_a_passage_that_joins_two_others_leaves_one(sections: KnowledgeBase) -> None:
    hits = [hit(sections, 1), hit(sections, 7), hit(sections, 4)]
    found = passages_of(store_of(sections), hits[:2], 5, 0, 0)
    assert [p.chunk_ids for p in found] == [(1,), (7,)]
    (passage,) = grown(sections, hits, w=3, w_th=-1)
    assert passage.chunk_ids == tuple(range(1, 8))
    assert passage.chunk_id == 1


def test_k_passages_come_back_and_merged_hits_do_not_count(sections: KnowledgeBase) -> None:
    hits = [hit(sections, i) for i in (3, 4, 5, 1, 9, 10)]
    assert [p.chunk_id for p in grown(sections, hits, k=2)] == [3, 1]


def test_a_passage_carries_what_a_citation_needs(full: KnowledgeBase) -> None:
    found = hit(full, 5)
    given = replace(found, score=0.4, dense=0.7, lexical=3.0, dense_rank=2, lexical_rank=None)
    (passage,) = grown(full, [given], w=0)
    (chunk,) = store_of(full).chunks([5])
    assert (passage.title, passage.uri, passage.url) == ("Book 1", "/library/1.txt", "")
    assert passage.line == 3  # the second paragraph, behind an empty line
    assert (passage.start, passage.end, passage.text) == (chunk.start, chunk.end, chunk.text)
    assert (passage.score, passage.dense, passage.lexical) == (0.4, 0.7, 3.0)
    assert (passage.dense_rank, passage.lexical_rank) == (2, None)


def test_a_url_is_kept_and_lines_are_counted_only_where_they_mean_something(
    base: KnowledgeBase,
) -> None:
    base.add_documents([Document("/w", "W", "a\nb", metadata={"url": "wiki:W"})])
    (passage,) = grown(base, [hit(base, 1)])
    assert (passage.url, passage.line) == ("wiki:W", None)


def test_spans_equal_the_stored_text_whatever_grows(
    full: KnowledgeBase, rng: np.random.Generator
) -> None:
    for _ in range(50):
        hits = [hit(full, int(i)) for i in rng.choice(np.arange(1, 31), 6, replace=False)]
        found = grown(full, hits, k=4, w=int(rng.integers(4)), w_th=float(rng.uniform(-1, 1)))
        assert 1 <= len(found) <= 4
        assert len({i for p in found for i in p.chunk_ids}) == sum(len(p.chunk_ids) for p in found)
