"""The same batches from any place of any epoch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from data.datasets import BadRow, Row, Turn
from engine.training.feed import Fed, Feed, Place
from tests.engine.training.fakes import tokenizer_with


class FakeRows:
    """Rows in memory, another order each epoch; every fifth is bad."""

    def __init__(self, n: int, bad: int = 5) -> None:
        self.n_rows = n
        self._bad = bad

    def epoch(self, number: int, start: int = 0) -> Iterator[Row | BadRow]:
        order = np.random.default_rng(number).permutation(self.n_rows)
        for i in order[start:]:
            if i % self._bad == 0:
                yield BadRow(f"rows:{i}", "no JSON")
            else:
                turns = (Turn("user", f"Say {i}", False), Turn("assistant", "so " * (i % 9), True))
                yield Row(turns, None, f"rows:{i}", "messages")


def feed_of(n: int = 60, epochs: int = 2, window: int = 4, bad: int = 5) -> Feed:
    return Feed(FakeRows(n, bad), tokenizer_with("chatml"), 200, 256, epochs, window)


def key(fed: Fed) -> tuple[object, ...]:
    return (fed.batch.token_ids.tolist(), fed.batch.rows.tolist(), fed.next, fed.epochs)


@pytest.mark.parametrize("window", [1, 4, 1000])
def test_batches_go_on_from_every_place(window: int) -> None:
    feed = feed_of(window=window)
    whole = list(feed.batches())
    assert len(whole) > 10
    for number, fed in enumerate(whole[:-1]):
        rest = list(feed.batches(fed.next))
        assert [key(one) for one in rest] == [key(one) for one in whole[number + 1 :]]
    assert list(feed.batches(whole[-1].next)) == []


def test_every_good_row_is_there_once_an_epoch() -> None:
    feed = feed_of()
    epochs: list[list[str]] = [[], []]
    for fed in feed.batches():
        number = 0 if fed.epochs <= 1 else 1
        ends = np.cumsum(fed.batch.lengths)
        for start, end in zip(ends - fed.batch.lengths, ends, strict=True):
            epochs[number].append(feed.tokenizer.decode(fed.batch.token_ids[start:end].tolist()))
    assert sorted(epochs[0]) == sorted(epochs[1]) and epochs[0] != epochs[1]
    assert len(epochs[0]) == 48


def test_epochs_end_where_they_end() -> None:
    feds = list(feed_of().batches())
    ends = [fed for fed in feds if fed.ends_epoch]
    assert [(fed.epochs, fed.next) for fed in ends] == [(1.0, Place(1)), (2.0, Place(2))]
    assert feds[-1] is ends[-1]
    done = [fed.epochs for fed in feds]
    assert done == sorted(done) and done[0] > 0


def test_an_epoch_that_ends_with_bad_rows_ends_with_its_last_batch() -> None:
    class Worse(FakeRows):
        def epoch(self, number: int, start: int = 0) -> Iterator[Row | BadRow]:
            good = [row for row in super().epoch(number) if isinstance(row, Row)]
            rows: list[Row | BadRow] = [*good, *(BadRow(f"x:{i}", "bad") for i in range(400))]
            return iter(rows[start:])

    feed = Feed(Worse(60), tokenizer_with("chatml"), 200, 256, 1, 2)
    feds = list(feed.batches())
    assert [fed.ends_epoch for fed in feds] == [False] * (len(feds) - 1) + [True]


def test_bad_rows_are_told() -> None:
    told: list[BadRow] = []
    feed = feed_of(10, epochs=1)
    feed.on_bad = told.append
    assert list(feed.batches())
    assert sorted(bad.origin for bad in told) == ["rows:0", "rows:5"]


def test_rows_that_teach_nothing_are_an_error() -> None:
    with pytest.raises(ValueError, match="no row of the data can be learned from"):
        list(feed_of(bad=1).batches())


def test_the_first_window_tells_the_length_of_the_run() -> None:
    feed = feed_of(epochs=3)
    batches, times = feed.first_window()
    assert len(batches) * times == pytest.approx(len(list(feed.batches())), rel=0.15)
    everything, thrice = feed_of(epochs=3, window=1000).first_window()
    assert thrice == 3 and len(everything) == len(list(feed_of(epochs=1, window=1000).batches()))
