"""How far a sparse model's next-token distributions are from the dense model's, with errors.

top-1             share of positions with the same likeliest token
KL                of the whole distribution, KL(dense, sparse), in nats, at temperature 1
KL of the top 40  the same over the dense model's 40 likeliest tokens, both sides renormalised
recall            share of the dense model's 40 likeliest that are among the sparse model's
missed            of a draw among the dense model's 40: the chance of a token that a draw among the
                  sparse model's 40 never gives
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

N_BEST = 40
METRICS = ("top-1", "KL", "KL of the top 40", "recall of the top 40", "missed of the top 40")


class Dense(NamedTuple):
    """The dense model's side of comparisons, worked out once."""

    logits: NDArray[np.float32]  # (T, vocab_size)
    chances: Floats
    negentropy: Floats  # (T,)
    best: NDArray[np.intp]  # (T, N_BEST): ids of the likeliest
    best_logprobs: Floats  # of those, renormalised


def dense_side(logits: NDArray[np.float32]) -> Dense:
    """(T, vocab_size), a vocabulary of more than 40."""
    logprobs = _logprobs(logits.astype(np.float64))
    chances = np.exp(logprobs)
    best = np.argpartition(-logits, N_BEST, axis=-1)[:, :N_BEST]
    best_logprobs = _logprobs(np.take_along_axis(logprobs, best, axis=-1))
    return Dense(logits, chances, (chances * logprobs).sum(axis=-1), best, best_logprobs)


def compare(dense: Dense, sparse: NDArray[np.float32]) -> dict[str, Floats]:
    """Each metric at each position; sparse (T, vocab_size)."""
    scores = sparse.astype(np.float64)
    crossed = np.einsum("ij,ij->i", dense.chances, scores)
    lead = scores.max(axis=-1)
    scores -= lead[:, None]
    crossed -= lead + np.log(np.exp(scores, out=scores).sum(axis=-1))
    found = np.take_along_axis(sparse, dense.best, axis=-1)
    is_found = found >= np.partition(sparse, -N_BEST, axis=-1)[:, -N_BEST, None]
    chances = np.exp(dense.best_logprobs)
    divergences = dense.best_logprobs - _logprobs(found.astype(np.float64))
    values = (
        dense.logits.argmax(axis=-1) == sparse.argmax(axis=-1),
        dense.negentropy - crossed,
        (chances * divergences).sum(axis=-1),
        is_found.mean(axis=-1),
        (chances * ~is_found).sum(axis=-1),
    )
    return {
        name: np.asarray(value, np.float64) for name, value in zip(METRICS, values, strict=True)
    }


def _logprobs(logits: Floats) -> Floats:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    found: Floats = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return found


class Mean(NamedTuple):
    """Of all positions; error: the standard error, texts being what was drawn independently."""

    value: float
    error: float
    n: int  # positions

    def interval(self) -> tuple[float, float]:
        """95 %."""
        return self.value - 1.96 * self.error, self.value + 1.96 * self.error


def mean_of(sums: Sequence[float], counts: Sequence[int]) -> Mean:
    """Of texts with these sums over so many positions each."""
    weights = np.asarray(counts, np.float64)
    n, clusters = weights.sum(), len(weights)
    value = float(np.sum(sums) / n)
    off = np.asarray(sums) - weights * value  # what each text adds to the sum beyond its share
    if clusters < 2:
        return Mean(value, float("nan"), int(n))
    error = float(np.sqrt(np.square(off).sum() * clusters / (clusters - 1)) / n)
    return Mean(value, error, int(n))


def loss_of(divergence: Mean) -> Mean:
    """exp(KL) - 1: by how much perplexity grows if the dense model is right."""
    grown = float(np.exp(divergence.value))
    return Mean(grown - 1, grown * divergence.error, divergence.n)
