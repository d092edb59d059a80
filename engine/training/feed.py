"""Rows on their way into batches, from any place of any epoch: a resumed run goes on where it was.

A window of rows (some dozens of batches' worth) is read, rendered and packed at once; the place in
the data is the window's first row and how many of its batches were given out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from data.datasets import BadRow, Row
from engine.training.examples import Example, example
from engine.training.packing import WINDOW, Batch, batch_of, best_fit

if TYPE_CHECKING:
    from engine.tokenizer import Tokenizer


class RowsSource(Protocol):
    """What is read of data.training_rows.Rows."""

    @property
    def n_rows(self) -> int: ...

    def epoch(self, number: int, start: int = 0) -> Iterator[Row | BadRow]: ...


class Place(NamedTuple):
    """Of the next batch: number `batch` of the window that begins at row `row` of the epoch."""

    epoch: int = 0
    row: int = 0
    batch: int = 0


BEGIN = Place()


class Fed(NamedTuple):
    """A batch, where the next one begins, and how many epochs are done with it."""

    batch: Batch
    next: Place
    epochs: float
    ends_epoch: bool


class _Window(NamedTuple):
    """first: its first row in the epoch; n_rows were read, bad ones among them."""

    batches: list[Batch]
    first: int
    n_rows: int
    is_last: bool


@dataclass
class Feed:
    """Batches of all epochs.

    window  batches' worth of tokens that are read and packed together
    on_bad  hears of rows that teach nothing, each time they are met
    """

    rows: RowsSource
    tokenizer: Tokenizer
    max_seq_len: int
    tokens_per_batch: int
    epochs: int = 1
    window: int = WINDOW
    on_bad: Callable[[BadRow], None] = lambda bad: None

    def batches(self, start: Place = BEGIN) -> Iterator[Fed]:
        """From `start` to the end of the last epoch. ValueError for an epoch without a batch."""
        for epoch in range(start.epoch, self.epochs):
            first = start if epoch == start.epoch else Place(epoch)
            last = None
            for fed in self._epoch(first):
                if last is not None:
                    yield last
                last = fed  # held back until it is known whether another one follows
            if last is not None:
                yield Fed(last.batch, Place(epoch + 1), epoch + 1.0, True)
            elif first == Place(epoch):
                raise ValueError("no row of the data can be learned from; `train check` says why")

    def first_window(self) -> tuple[list[Batch], float]:
        """The batches of the first window, and how many times that the whole run is, about."""
        window = next(self._windows(0, 0))
        share = 1.0 if window.is_last else window.n_rows / max(self.rows.n_rows, 1)
        return window.batches, self.epochs / share

    def _epoch(self, start: Place) -> Iterator[Fed]:
        skipped = start.batch
        for window in self._windows(start.epoch, start.row):
            n, behind = len(window.batches), window.first + window.n_rows
            for number in range(skipped, n):
                place = Place(start.epoch, window.first, number + 1)
                read = window.first + window.n_rows * (number + 1) / n
                yield Fed(
                    window.batches[number],
                    place if number + 1 < n else Place(start.epoch, behind),
                    # whole numbers are for ends of epochs
                    start.epoch + min(read / max(self.rows.n_rows, 1), 1 - 1e-9),
                    False,
                )
            skipped = 0

    def _windows(self, epoch: int, first: int) -> Iterator[_Window]:
        budget = self.tokens_per_batch * self.window
        held: list[Example] = []
        n_rows = n_tokens = 0
        for found in self.rows.epoch(epoch, first):
            if n_tokens >= budget:
                yield _Window(self._packed(held), first, n_rows, False)
                held, first, n_rows, n_tokens = [], first + n_rows, 0, 0
            n_rows += 1
            if (made := self._example(found)) is not None:
                held.append(made)
                n_tokens += len(made.token_ids)
        yield _Window(self._packed(held), first, n_rows, True)

    def _packed(self, held: Sequence[Example]) -> list[Batch]:
        bins = best_fit([len(one.token_ids) for one in held], self.tokens_per_batch)
        return [batch_of([held[i] for i in indices]) for indices in bins]

    def _example(self, row: Row | BadRow) -> Example | None:
        if isinstance(row, BadRow):
            self.on_bad(row)
            return None
        try:
            return example(row, self.tokenizer, self.max_seq_len)
        except ValueError as error:
            self.on_bad(BadRow(row.origin, str(error)))
            return None
