"""Packed batches hold every document once, whole, within the budget."""

from __future__ import annotations

import numpy as np
import pytest

from engine.training.examples import Example
from engine.training.packing import batch_of, best_fit, pack


def random_examples(rng: np.random.Generator, n: int, longest: int) -> list[Example]:
    made = []
    for i in range(n):
        length = int(rng.integers(2, longest + 1))
        trained = (rng.random(length) < 0.5).tolist()
        trained[0], trained[-1] = False, True
        made.append(Example(rng.integers(0, 1000, length).tolist(), trained, f"x:{i}", 0))
    return made


@pytest.mark.parametrize(("n", "longest", "budget"), [(1, 7, 7), (200, 50, 64), (300, 64, 64)])
def test_every_document_is_whole_in_one_batch_within_the_budget(
    rng: np.random.Generator, n: int, longest: int, budget: int
) -> None:
    examples = random_examples(rng, n, longest)
    found = []
    for batch in pack(examples, budget, window=4):
        assert len(batch.token_ids) == sum(batch.lengths) <= budget
        ends = np.cumsum(batch.lengths)
        for start, end in zip(ends - batch.lengths, ends, strict=True):
            assert batch.positions[start:end].tolist() == list(range(end - start))
            inside = (batch.rows >= start) & (batch.rows < end)
            labels = batch.rows[inside] + 1 - start
            assert batch.targets[inside].tolist() == [
                int(batch.token_ids[start + i]) for i in labels
            ]
            trained = np.zeros(end - start, np.bool_)
            trained[labels] = True
            found.append((batch.token_ids[start:end].tolist(), trained.tolist()))
    assert sorted(found) == sorted((one.token_ids, one.trained) for one in examples)


def test_best_fit_fills_the_fullest_batch_that_has_room() -> None:
    assert best_fit([3, 6, 4, 7], 10) == [[0, 3], [1, 2]]
    assert best_fit([2, 2, 2, 2], 4) == [[0, 1], [2, 3]]
    assert best_fit([5, 10, 5], 10) == [[0, 2], [1]]
    assert best_fit([], 10) == []


def test_packing_wastes_little(rng: np.random.Generator) -> None:
    examples = random_examples(rng, 2000, 300)
    batches = list(pack(examples, 1024))
    assert sum(len(b.token_ids) for b in batches) / (1024 * len(batches)) > 0.98


def test_the_first_token_of_a_document_is_no_label() -> None:
    batch = batch_of([Example([5, 6], [True, True], "a", 0), Example([7, 8], [True, True], "b", 0)])
    assert batch.rows.tolist() == [0, 2]
    assert batch.targets.tolist() == [6, 8]
    assert batch.token_ids.dtype == batch.positions.dtype == batch.rows.dtype == np.int64


def test_a_document_beyond_the_budget_is_an_error() -> None:
    with pytest.raises(ValueError, match="a document of 11 tokens does not fit into batches of 10"):
        best_fit([3, 11], 10)
