from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from retrieval import fusion
from retrieval.fusion import HYBRID, Candidates
from retrieval.rows import StoredChunk


def chunk(i: int, text: str, title: str = "", headings: tuple[str, ...] = ()) -> StoredChunk:
    """A chunk of a document of its own."""
    label = " — ".join(part for part in (title, *headings) if part)
    return StoredChunk(i, i, 0, 0, len(text), None, headings, text, label)


def candidates(
    chunks: Sequence[StoredChunk],
    dense: Sequence[float] | None = None,
    lexical: Sequence[float] | None = None,
) -> Candidates:
    """Candidates in which every chunk comes from both legs unless a number is NaN."""
    n = len(chunks)
    near = np.array([0.5] * n if dense is None else dense, np.float32)
    bm25 = np.array([1.0] * n if lexical is None else lexical, np.float32)
    ranks = [[None if np.isnan(x) else 1 for x in column] for column in (near, bm25)]
    return Candidates(chunks, near, bm25, *ranks)


LAKE = chunk(1, "Lake Zurich lies south of the city.", "Lake Zurich")
RIVER = chunk(2, "A river leaves the lake in the city of Zurich.", "Limmat")
OTHER = chunk(3, "Bread is made of flour and water.", "Bread")


def test_no_candidates_have_no_scores() -> None:
    assert fusion.scores("anything", candidates([]), HYBRID).shape == (0,)


@pytest.mark.parametrize("weights", [fusion.HYBRID, fusion.WORDS, fusion.DENSE, fusion.LEXICAL])
def test_scores_are_probabilities(weights: fusion.Weights, rng: np.random.Generator) -> None:
    for query in ("", "?", "which river leaves Lake Zurich", "x " * 200):
        found = candidates([LAKE, RIVER, OTHER], rng.uniform(-1, 1, 3), rng.uniform(0, 40, 3))
        scores = fusion.scores(query, found, weights)
        assert ((scores > 0) & (scores < 1)).all()


def test_a_higher_cosine_is_a_higher_score() -> None:
    low, high = fusion.scores("bread", candidates([OTHER, OTHER], [0.3, 0.6]), HYBRID)
    assert high > low


def test_coverage_is_the_share_of_the_words_asked_and_rare_words_count_more() -> None:
    known = fusion.features("river of Zurich", candidates([LAKE, RIVER, OTHER]))
    assert known.coverage[2] == 0
    assert known.coverage[1] == pytest.approx(1)
    assert 0 < known.coverage[0] < 0.5  # Zurich is in two of three, river in one


def test_words_meet_their_other_forms_and_accents_do_not_matter() -> None:
    found = candidates([chunk(1, "Cities and Rivers"), chunk(2, "Zürich"), chunk(3, "cityscape")])
    assert fusion.features("city river", found).coverage.tolist()[0] == pytest.approx(1)
    assert fusion.features("ZURICH", found).coverage.tolist() == [0, 1, 0]
    assert fusion.features("city", found).coverage.tolist() == [1, 0, 0]


@pytest.mark.parametrize(
    ("title", "query", "is_named"),
    [
        ("Lake Zurich", "how deep is lake zurich?", True),
        ("Lake Zürich", "How deep are the lakes Zurich", True),
        ("Mercury (planet)", "is mercury hot", True),
        ("Zurich", "the lake of Zürichberg", False),
        ("The Who", "the who of it", False),
        ("", "anything", False),
        ("Lake Zurich Guild", "lake zurich", False),
    ],
)
def test_a_title_is_named_when_all_its_words_stand_together(
    title: str, query: str, is_named: bool
) -> None:
    known = fusion.features(query, candidates([chunk(1, "text", title)]))
    assert known.title.tolist() == [float(is_named)]


def test_headings_are_no_part_of_the_title() -> None:
    under = chunk(1, "text", "Lake Zurich", ("Geography", "Depth — today"))
    assert fusion.document_title(under) == "Lake Zurich"
    assert fusion.document_title(replace(under, headings=())) == under.title
    assert fusion.document_title(chunk(1, "text", "", ("Only",))) == ""
    assert fusion.features("lake zurich", candidates([under])).title.tolist() == [1.0]


def test_a_chunk_without_a_vector_counts_as_the_farthest() -> None:
    known = fusion.features("x", candidates([LAKE, RIVER, OTHER], [0.7, np.nan, 0.2]))
    np.testing.assert_allclose(known.cosine, [0.7, 0.2, 0.2], rtol=1e-6)
    none = fusion.features("x", candidates([LAKE], [np.nan]))
    assert none.cosine.tolist() == [0.0]


def test_bm25_is_a_share_of_the_best_and_nothing_where_words_brought_nothing() -> None:
    known = fusion.features("x", candidates([LAKE, RIVER, OTHER], lexical=[4.0, np.nan, 8.0]))
    assert known.bm25.tolist() == [0.5, 0.0, 1.0]
    assert fusion.features("x", candidates([LAKE], lexical=[np.nan])).bm25.tolist() == [0.0]


def test_single_legs_keep_their_own_order(rng: np.random.Generator) -> None:
    chunks = [LAKE, RIVER, OTHER, LAKE, RIVER]
    found = candidates(chunks, rng.uniform(-1, 1, 5), rng.uniform(1, 30, 5))
    for weights, column in ((fusion.DENSE, found.dense), (fusion.LEXICAL, found.lexical)):
        scores = fusion.scores("which river leaves lake zurich", found, weights)
        np.testing.assert_array_equal(np.argsort(scores), np.argsort(column))


def test_the_order_is_that_of_the_sum(rng: np.random.Generator) -> None:
    found = candidates([LAKE, RIVER, OTHER], rng.uniform(0, 1, 3), rng.uniform(1, 30, 3))
    known = fusion.features("the river at Lake Zurich", found)
    sums = fusion.total(known, HYBRID)
    np.testing.assert_array_equal(np.argsort(sums), np.argsort(fusion.judged(known, HYBRID)))


def test_the_threshold_grows_with_what_can_be_alike_by_chance() -> None:
    sizes = [1, 10, 100, 1000, 10_000, 10_000_000]
    least = [fusion.threshold(fusion.HYBRID, n) for n in sizes]
    assert least == pytest.approx([0.02, 0.02, 0.03, 0.04, 0.05, 0.05])
    assert fusion.threshold(fusion.WORDS, 10_000) == fusion.WORDS_THRESHOLD
