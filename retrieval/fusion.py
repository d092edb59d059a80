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
    # of the sum; of the best cosine or BM25; of log(1 + words asked); and the constant
    scale: float = 1.0
    best: float = 0.0
    n_terms: float = 0.0
    bias: float = 0.0


# The title's weight is half of what the fit gives: questions about an article usually name it, but
# those whose answer is another article suffer from it (benchmarks/fusion.py shows both).
HYBRID = Weights(
    cosine=10.8, coverage=2.15, title=0.8, scale=1.35, best=-9.4, n_terms=1.5, bias=-8.5
)
# hybrid before there are vectors
WORDS = Weights(coverage=2.0, title=0.8, bm25=2.0, scale=1.0, best=0.05, n_terms=1.0, bias=-6.0)
# single legs, in their own order
DENSE = Weights(cosine=10.0, scale=1.0, best=0.0, n_terms=1.0, bias=-8.0)
LEXICAL = Weights(bm25=3.0, scale=1.0, best=0.05, n_terms=0.5, bias=-5.0)

# below it nothing is said to have been found
THRESHOLD = 0.05


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
    best_cosine: float
    best_bm25: float
    n_terms: int


def scores(query: str, found: Candidates, weights: Weights) -> Column:
    """(n,) between 0 and 1, bigger is better."""
    if not len(found.chunks):
        return np.empty(0)
    return judged(features(query, found), weights)


def judged(known: Features, weights: Weights) -> Column:
    """The probabilities, from the features."""
    best = known.best_cosine if weights.cosine else known.best_bm25
    logits = weights.scale * total(known, weights) + (
        weights.best * best + weights.n_terms * math.log1p(known.n_terms) + weights.bias
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
        best_cosine=float(cosine.max()),
        best_bm25=best_bm25,
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
