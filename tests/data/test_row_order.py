from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from data.row_order import Draws, Permutation


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 16, 17, 100, 1000, 4097])
def test_a_permutation_has_every_number_once(n: int) -> None:
    permutation = Permutation(n, 0)
    assert sorted(permutation[i] for i in range(n)) == list(range(n))


def test_the_same_key_gives_the_same_order_and_another_another() -> None:
    orders = [[Permutation(50, *key)[i] for i in range(50)] for key in [(0, 1), (0, 1), (1, 0)]]
    assert orders[0] == orders[1] != orders[2]


def test_numbers_beyond_the_last_are_refused() -> None:
    with pytest.raises(IndexError, match=r"5 is not in \[0, 5\)"):
        Permutation(5, 0)[5]


def test_neighbours_are_scattered() -> None:
    # of a random permutation the mean distance of neighbours is n / 3, and the rank correlation
    # between place and number near 0, with a standard deviation of 1 / sqrt(n)
    n = 10_000
    order = np.array([Permutation(n, 7)[i] for i in range(n)])
    assert abs(np.abs(np.diff(order)).mean() / (n / 3) - 1) < 0.05
    assert abs(np.corrcoef(np.arange(n), order)[0, 1]) < 0.05


def test_each_place_of_a_small_permutation_gets_each_number_equally_often() -> None:
    counts = np.zeros((5, 5))
    for key in range(2000):
        permutation = Permutation(5, key)
        for i in range(5):
            counts[i, permutation[i]] += 1
    assert np.abs(counts - 400).max() < 5 * 400**0.5  # five standard deviations


def test_forty_million_rows_need_no_list() -> None:
    permutation = Permutation(43_000_000, 0)
    assert len({permutation[i] for i in range(2000)}) == 2000


def drawn(draws: Draws, epoch: int) -> list[tuple[int, int]]:
    return [draws.at(epoch, position) for position in range(draws.n_rows)]


def test_without_weights_an_epoch_has_every_row_once() -> None:
    draws = Draws([3, 1, 6], None, seed=0)
    epochs = [drawn(draws, epoch) for epoch in range(3)]
    rows = sorted((source, row) for source, size in enumerate([3, 1, 6]) for row in range(size))
    assert [sorted(epoch) for epoch in epochs] == [rows] * 3
    assert epochs[0] != epochs[1] != epochs[2]


def test_sources_are_mixed_throughout() -> None:
    first_half = drawn(Draws([1000, 1000], None, seed=0), 0)[:1000]
    assert 400 < Counter(source for source, _ in first_half)[0] < 600


def test_with_weights_sources_are_drawn_in_proportion() -> None:
    draws = Draws([90, 10], [1.0, 3.0], seed=0)
    epochs = [drawn(draws, epoch) for epoch in range(4)]
    assert [Counter(source for source, _ in epoch) for epoch in epochs] == [{0: 25, 1: 75}] * 4
    # the rows of the large source all come before any comes again
    assert len({row for epoch in epochs[:3] for source, row in epoch if source == 0}) == 75
    # the small one is gone through seven and a half times
    assert set(Counter(row for source, row in epochs[0] if source == 1).values()) == {7, 8}


def test_a_source_of_little_weight_is_not_left_out() -> None:
    assert Draws([10, 1, 1], [1.0, 1e-9, 1e-9], seed=0).shares == [10, 1, 1]


@pytest.mark.parametrize("weights", [[1, 1, 1], [0.2, 0.3, 0.5], [5, 1.5, 7]])
def test_shares_sum_up(weights: list[float]) -> None:
    draws = Draws([4, 5, 2], weights, seed=0)
    assert sum(draws.shares) == 11
    total = sum(weights)
    assert all(abs(s - 11 * w / total) < 1 for s, w in zip(draws.shares, weights, strict=True))


def test_the_seed_changes_the_order() -> None:
    assert drawn(Draws([20], None, 0), 0) == drawn(Draws([20], None, 0), 0)
    assert drawn(Draws([20], None, 0), 0) != drawn(Draws([20], None, 1), 0)
