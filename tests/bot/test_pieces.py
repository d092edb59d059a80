from __future__ import annotations

import numpy as np
import pytest

from bot.pieces import PIECE, InPieces, Stopped
from tests.retrieval.encoders import HashingEncoder

TEXTS = [f"word{n} " * (1 + n % 7) for n in range(3 * PIECE + 5)]


def test_pieces_give_the_same_vectors_in_the_same_order() -> None:
    whole, done = HashingEncoder(), []
    pieces = InPieces(HashingEncoder(), done.append)
    assert np.array_equal(pieces.encode(TEXTS), whole.encode(TEXTS))
    assert done == [PIECE, 2 * PIECE, 3 * PIECE, len(TEXTS)]
    assert (pieces.encoder_id, pieces.dimension) == (whole.encoder_id, whole.dimension)
    assert pieces.encode([]).shape == (0, whole.dimension)


def test_what_is_called_between_pieces_may_end_it() -> None:
    encoder = HashingEncoder()

    def stop(n_done: int) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        InPieces(encoder, stop).encode(TEXTS)
    assert len(encoder.encoded) == PIECE
