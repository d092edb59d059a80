"""All passages of a knowledge base on their way into a file of rows."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bot.interrupts import Interrupts
from bot.kb.progress import Progress
from bot.training.questions import Cancelled, RowMaker
from bot.training.row_file import RowFile
from bot.worker import Worker

if TYPE_CHECKING:
    from engine import Cancel
    from retrieval import KnowledgeBase

_POLL_S = 0.05


class Writing:
    """In an order that the seed decides, so that the first rows are a sample of the whole base.

    counts  passages by what became of them, in this run
    """

    def __init__(self, base: KnowledgeBase, rows: RowFile, seed: int, limit: int | None) -> None:
        self.rows, self.counts = rows, Counter[str]()
        self._base, self._limit = base, limit
        order = base.chunk_ids().tolist()
        if not order:
            raise ValueError(
                f"{base.name} has no passages; `sparsechat kb add {base.name} PATH` adds some"
            )
        random.Random(seed).shuffle(order)
        self._n_before = _n_passed(order, rows.chunk_ids)
        self._n_all, self._left = len(order), order[self._n_before :]

    def run(self, maker: RowMaker, worker: Worker, interrupts: Interrupts) -> bool:
        """Write what is left, on the worker; False when Ctrl-C ended it before that."""
        import engine

        cancel, progress = engine.Cancel(), Progress(self._base.name)
        try:
            with interrupts.cancelling(cancel):
                future = worker.submit(lambda: self._work(maker, cancel))
                while not future.done():
                    progress.report(*self._done(), "writing rows")
                    time.sleep(_POLL_S)
        finally:
            progress.close()
        return future.result()

    def _work(self, maker: RowMaker, cancel: Cancel) -> bool:
        for chunk_id in self._left:
            if self._is_full:
                break
            if cancel.is_set():
                return False
            for passage in self._base.passages([chunk_id]):  # none when it is gone by now
                try:
                    made = maker.row(passage, cancel)
                except Cancelled:
                    return False
                if made.row is not None:
                    self.rows.append(made.row)
                self.counts[made.reason] += 1
        return True

    @property
    def _is_full(self) -> bool:
        return self._limit is not None and len(self.rows.chunk_ids) >= self._limit

    def _done(self) -> tuple[int, int]:
        """How much, and of how much: rows where their number is given, else passages."""
        if self._limit is not None:
            return min(len(self.rows.chunk_ids), self._limit), self._limit
        return self._n_before + self.counts.total(), self._n_all


def _n_passed(order: Sequence[int], written: Sequence[int]) -> int:
    """How many passages of `order` an earlier run has been through."""
    last = set(written)
    return max((place for place, chunk_id in enumerate(order, 1) if chunk_id in last), default=0)
