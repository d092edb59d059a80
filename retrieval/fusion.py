"""Both legs' candidates on one scale: a score between 0 and 1 that orders them.

Reciprocal ranks throw away how good a leg's best hit is, and on real questions they are no better
at the top than vectors alone. What is: a weighted sum, for every candidate of either leg, of

    cosine    of the question and the chunk, from stored vectors
    coverage  the share of the question's words that the chunk and its title contain, rare words
              counting more (how rare is counted among the candidates)
    title     1 when the whole title of the document stands in the question
    bm25      as a share of the best candidate's

The sum becomes a probability that the passage answers the question by a logistic function that also
knows how good the best candidate is and how many words were asked. It means: of passages with this
score so many were right where half of the questions had an answer in the collection, a third were
like them without one, and the rest was small talk. `python -m benchmarks.fusion` measures all
numbers below on the questions that are there to tune on, and what they do on others.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .lexical import pattern_of, plain, stem, terms, words

if TYPE_CHECKING:
    from .rows import StoredChunk

Column = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Weights:
    """Of the sum, and of the logistic function that follows it."""

    cosine: float = 0.0
    coverage: float = 0.0
    title: float = 0.0
    bm25: float = 0.0
    scale: float = 1.0  # of the sum
    best: float = 0.0  # of the best candidate's cosine, or coverage where there are no vectors
    n_terms: float = 0.0  # of log(1 + words asked)
    bias: float = 0.0


# The title's weight is a third of what the fit gives: a question about an article usually names it,
# but one whose answer is another article suffers from that. On questions that were not fitted on,
# recall@5 is .925 where vectors alone have .864 and words .737 (a title in the question), and .215
# where they have .208 and .130 (none): benchmarks/fusion.py, 2026-11-22.
HYBRID = Weights(
    cosine=9.708, coverage=2.206, title=0.867, scale=1.617, best=-10.1, n_terms=1.897, bias=-9.811
)
# hybrid before there are vectors
WORDS = Weights(
    coverage=3.065,
    title=1.244,
    bm25=3.214,
    scale=1.96,
    best=-2.83,
    n_terms=2.221,
    bias=-14.06,
)
# single legs, in their own order
DENSE = Weights(cosine=17.33, scale=1.41, best=-12.39, n_terms=0.284, bias=-8.604)
LEXICAL = Weights(bm25=8.228, scale=1.233, best=3.581, n_terms=1.911, bias=-16.92)

# Scores below which nothing is said to have been found, in a base of 10,000 chunks or more. Of the
# right chunks among the first three, 95 % stay; of questions that the collection does not answer,
# 41 % find nothing, of small talk 81 %.
THRESHOLD = 0.05
WORDS_THRESHOLD = 0.03  # of WORDS: a single word that stands in a chunk is enough
# of a base of ten chunks
_SMALL, _SMALL_THRESHOLD, _LARGE = 10, 0.02, 10_000


def threshold(weights: Weights, n_chunks: int) -> float:
    """The score below which nothing has been found in a base of n_chunks.

    The fewer chunks there are, the less is alike by chance: among 10 random ones 97 % of the
    questions that they do not answer stay below 0.02, and no right one does; among 100 they are
    80 % and 2 % at 0.03.
    """
    highest = WORDS_THRESHOLD if weights is WORDS else THRESHOLD
    share = math.log(max(n_chunks, 1) / _SMALL) / math.log(_LARGE / _SMALL)
    lowest = min(_SMALL_THRESHOLD, highest)
    return lowest + (highest - lowest) * min(max(share, 0.0), 1.0)


@dataclass(frozen=True, slots=True)
class Candidates:
    """What the legs brought: row i of every column is one chunk."""

    chunks: Sequence[StoredChunk]
    dense: NDArray[np.float32]  # (n,) cosine; NaN where there is no vector
    lexical: NDArray[np.float32]  # (n,) BM25; NaN where that leg did not bring it
    dense_rank: Sequence[int | None]  # from 1
    lexical_rank: Sequence[int | None]


@dataclass(frozen=True, slots=True)
class Features:
    """Columns (n,) float64 of the sum, and what is known about the question."""

    cosine: Column
    coverage: Column
    title: Column
    bm25: Column
    n_terms: int

    def best(self, weights: Weights) -> float:
        """How good the best candidate is, on a scale that does not grow with the collection."""
        return float((self.cosine if weights.cosine else self.coverage).max())


def scores(query: str, found: Candidates, weights: Weights) -> Column:
    """(n,) between 0 and 1, bigger is better."""
    if not len(found.chunks):
        return np.empty(0)
    return judged(features(query, found), weights)


def judged(known: Features, weights: Weights) -> Column:
    """The probabilities, from the features."""
    logits = weights.scale * total(known, weights) + (
        weights.best * known.best(weights)
        + weights.n_terms * math.log1p(known.n_terms)
        + weights.bias
    )
    return 1 / (1 + np.exp(-logits))


def total(known: Features, weights: Weights) -> Column:
    """The weighted sum, which orders the candidates."""
    return (
        weights.cosine * known.cosine
        + weights.coverage * known.coverage
        + weights.title * known.title
        + weights.bm25 * known.bm25
    )


def features(query: str, found: Candidates) -> Features:
    """What the sum is made of, for at least one candidate."""
    asked = dict.fromkeys(map(stem, terms(query)))
    phrase = _phrase(query)
    titles = [document_title(chunk) for chunk in found.chunks]
    named = {title: _is_named(title, phrase) for title in set(titles)}
    cosine = found.dense.astype(np.float64)
    is_known = ~np.isnan(cosine)
    # a chunk without a vector yet: as far away as the farthest candidate
    cosine[~is_known] = cosine[is_known].min() if is_known.any() else 0.0
    bm25 = np.nan_to_num(found.lexical.astype(np.float64))
    best_bm25 = float(bm25.max())
    return Features(
        cosine=cosine,
        coverage=_coverage(asked, [f"{chunk.title} {chunk.text}" for chunk in found.chunks]),
        title=np.array([named[title] for title in titles], np.float64),
        bm25=bm25 / best_bm25 if best_bm25 > 0 else bm25,
        n_terms=len(asked),
    )


def document_title(chunk: StoredChunk) -> str:
    """The title of the chunk's document, without the headings that follow it in `chunk.title`."""
    headings = " — ".join(chunk.headings)
    return chunk.title.removesuffix(headings).removesuffix(" — ") if headings else chunk.title


def _coverage(asked: Collection[str], texts: Sequence[str]) -> Column:
    """The share of the stems `asked` that each text contains, weighted by rarity among texts."""
    if not asked:
        return np.zeros(len(texts))
    # stemming only the words that may match is ten times as fast as stemming all
    pattern = pattern_of(asked)
    held = [set(map(stem, pattern.findall(plain(text)))).intersection(asked) for text in texts]
    counts = Counter(term for terms_held in held for term in terms_held)
    rarity = {term: math.log1p(len(texts) / (1 + counts[term])) for term in asked}
    whole = sum(rarity.values())
    return np.array([sum(rarity[term] for term in terms_held) / whole for terms_held in held])


def _phrase(text: str) -> str:
    """The stems of all words, each between spaces: a part of it is a run of whole words."""
    return f" {' '.join(map(stem, words(text)))} "


def _is_named(title: str, phrase: str) -> bool:
    """Whether the title, without a bracket at its end, stands in the question's `phrase`."""
    name = re.sub(r"\s*\([^()]*\)$", "", title)
    return bool(terms(name)) and _phrase(name) in phrase
