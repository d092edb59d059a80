"""A smaller matrix in front of the vocabulary head, and what the kernels are told of it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.config import DecoderConfig
from engine.formats import Weight
from engine.kernels.layout import ROWS
from engine.kernels.tables import SCREENED_BEST, SCREENED_ROWS, Batch


class Screen(NamedTuple):
    """What says roughly what the head would: see engine/kernels/head.py.

    scores   (vocab_size, n) of the first n numbers of a state
    rest     (vocab_size, hidden_size - n) of the others, with one byte an activation; None: there
             are no others
    basis    (hidden_size, hidden_size): what turns states before; None = they stay as they are
    bounds   float32 (vocab_size padded to groups,): how far a score may be off, for a state of
             length 1
    margin   in bounds: what a logit may be above the screen's score, where one logit is needed
    margins  the same where several are
    n_first  groups of logits that are computed in any case
    """

    scores: Weight
    rest: Weight | None
    basis: Weight | None
    bounds: NDArray[np.float32]
    margin: float
    margins: float
    n_first: int = 1

    def n_best(self, config: DecoderConfig, n_logits: int, n_best: int) -> int:
        """How many best ones of n_logits rows the kernel is asked for; 0 = all logits."""
        if config.head_bias or not n_logits:
            return 0
        n_first = max(n_best, self.n_first)
        fits = n_first <= min(SCREENED_BEST, config.vocab_size // ROWS)
        return n_best if fits and n_logits <= SCREENED_ROWS else 0

    def ask(self, batch: Batch, n_best: int) -> Batch:
        """The batch, asking for so many best logits of each row."""
        return batch._replace(
            n_best=n_best,
            n_first=max(n_best, self.n_first),
            margin=self.margin if n_best == 1 else self.margins,
        )
