"""An encoder that can be interrupted: a base commits vectors by some hundreds, which take long."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from retrieval.encoder import Encoder, Vectors

PIECE = 32  # texts; some 0.3 s of work


class Stopped(Exception):
    """What is called between pieces wants no more."""


class InPieces:
    """`encoder`, with a call of `between` after each piece of a batch.

    between  hears how many texts of the batch are done; it may block, or raise Stopped, which ends
             the work on this batch and leaves those before it committed
    """

    def __init__(self, encoder: Encoder, between: Callable[[int], None]) -> None:
        self.encoder_id, self.dimension = encoder.encoder_id, encoder.dimension
        self._encoder, self._between = encoder, between

    def encode(self, texts: Sequence[str]) -> Vectors:
        """As the encoder does; texts of like length go together, so that little is padded."""
        import numpy as np

        out = np.empty((len(texts), self.dimension), np.float32)
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        for first in range(0, len(order), PIECE):
            piece = order[first : first + PIECE]
            out[piece] = self._encoder.encode([texts[place] for place in piece])
            self._between(first + len(piece))
        return out
