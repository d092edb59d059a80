"""Distances of distributions that were written by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose

from benchmarks.divergence import N_BEST, Mean, compare, dense_side, loss_of, mean_of

VOCAB = 100


def logits_of(chances: np.ndarray) -> np.ndarray:
    return np.log(chances)[None].astype(np.float32) + np.float32(3)


def test_equal_logits_have_no_distance() -> None:
    logits = np.random.default_rng(0).standard_normal((5, VOCAB)).astype(np.float32)
    found = compare(dense_side(logits), logits)
    assert_allclose(found["KL"], 0, atol=1e-12)
    assert_allclose(found["KL of the top 40"], 0, atol=1e-12)
    assert_allclose(found["missed of the top 40"], 0)
    assert_allclose(found["top-1"], 1)
    assert_allclose(found["recall of the top 40"], 1)


def test_distances_are_those_of_the_definition() -> None:
    rng = np.random.default_rng(1)
    p, q = (chances / chances.sum() for chances in rng.random((2, VOCAB)) + 0.01)
    found = compare(dense_side(logits_of(p)), logits_of(q))
    assert_allclose(found["KL"], (p * np.log(p / q)).sum(), rtol=1e-5)
    best = np.argsort(-p)[:N_BEST]
    p40, q40 = p[best] / p[best].sum(), q[best] / q[best].sum()
    assert_allclose(found["KL of the top 40"], (p40 * np.log(p40 / q40)).sum(), rtol=1e-5)
    shared = np.isin(best, np.argsort(-q)[:N_BEST])
    assert_allclose(found["recall of the top 40"], shared.mean())
    assert_allclose(found["missed of the top 40"], p40[~shared].sum(), rtol=1e-5)
    assert found["top-1"][0] == (p.argmax() == q.argmax())


def test_another_likeliest_token_is_no_agreement() -> None:
    dense = np.zeros((2, VOCAB), np.float32)
    dense[:, 3] = 1
    sparse = dense.copy()
    sparse[1, 4] = 2
    assert compare(dense_side(dense), sparse)["top-1"].tolist() == [1, 0]


def test_texts_and_not_positions_are_what_was_drawn() -> None:
    # all positions of a text alike: as many independent values as texts
    values = np.array([0.1, 0.4, 0.2, 0.9])
    found = mean_of(list(values * 50), [50] * 4)
    assert found.value == pytest.approx(values.mean())
    assert found.error == pytest.approx(values.std(ddof=1) / 2)
    assert found.n == 200


def test_a_longer_text_counts_for_its_positions() -> None:
    assert mean_of([1.0, 0.0], [1, 3]).value == 0.25
    assert math.isnan(mean_of([1.0], [4]).error)


def test_loss_is_how_much_perplexity_grows() -> None:
    loss = loss_of(Mean(0.02, 0.001, 10))
    assert loss.value == pytest.approx(math.exp(0.02) - 1)
    assert loss.error == pytest.approx(math.exp(0.02) * 0.001)
