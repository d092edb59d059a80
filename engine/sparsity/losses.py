"""What texts lose when thresholds are in force: how far the next word's distribution moves.

Texts are lists of token ids. A probe runs a piece of one densely, with what thresholds would skip
set to zero behind its first tokens; its loss is the mean KL divergence of the next word's
distribution from the dense one, in nats. Of the dense distributions only the likeliest words are
kept, and what the others have together: a piece takes 0.4 MB instead of 9, and loses a little less.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.kernels.tables import N_SITES

if TYPE_CHECKING:
    from engine.decoder import Decoder

Floats = NDArray[np.float32]
Texts = Sequence[Sequence[int]]

START = 16  # tokens of a text that stay dense: prompts do, and the first ones carry much
PIECE = 96  # tokens
_CHUNK = 16  # of a piece: more at a time need memory for their logits
ALL = np.float32(-1)  # a threshold that everything is above
_WORDS = 1024
_LEAST = -30.0  # of a logarithm


def pieces_of(texts: Texts, most: int = 8) -> list[list[int]]:
    """Texts cut to pieces, `most` of them from all over; short ends are dropped."""
    cut = [list(text[at : at + PIECE]) for text in texts for at in range(0, len(text), PIECE)]
    pieces = [piece for piece in cut if len(piece) >= 2 * START]
    if not pieces:
        raise ValueError(f"thresholds need texts of {2 * START} tokens or more")
    return [pieces[i] for i in np.unique(np.linspace(0, len(pieces) - 1, most).astype(int))]


class Dense(NamedTuple):
    """The next words' distributions of a piece, W words of each.

    ids   int32 (T, W)     logs  float32 (T, W)
    rest  float32 (T,): logarithm of what all others have together
    """

    ids: NDArray[np.int32]
    logs: Floats
    rest: Floats

    def part(self, at: int, n: int) -> Dense:
        """Views of n rows."""
        some = slice(at, at + n)
        return Dense(self.ids[some], self.logs[some], self.rest[some])


def distributions(decoder: Decoder, piece: Sequence[int]) -> Dense:
    """What the dense model says after each token from START on."""
    everything = np.full((decoder.config.n_layers, N_SITES), ALL)
    n = min(_WORDS, decoder.config.vocab_size)
    shape, at = (len(piece) - START, n), 0
    found = Dense(
        np.empty(shape, np.int32), np.empty(shape, np.float32), np.empty(shape[0], np.float32)
    )
    for logits in _logits(decoder, piece, everything):
        part = found.part(at, len(logits))
        for row, words in zip(logits, part.ids, strict=True):
            words[:] = np.argpartition(row, -n)[-n:]
        part.logs[:], part.rest[:] = _logs(logits, part.ids)
        at += len(logits)
    return found


def loss(
    decoder: Decoder,
    pieces: Texts,
    reference: Sequence[Dense],
    values: Floats,
    importance: Floats | None = None,
) -> float:
    """Mean KL from the dense distributions with thresholds `values` (n_layers, N_SITES) of sizes
    times `importance` (n_layers, intermediate_size)."""
    total, n = 0.0, 0
    for piece, dense in zip(pieces, reference, strict=True):
        at = 0
        for logits in _logits(decoder, piece, values, importance):
            part = dense.part(at, len(logits))
            logs, rest = _logs(logits, part.ids)
            total += float((np.exp(part.logs) * (part.logs - logs)).sum(dtype=np.float64))
            total += float((np.exp(part.rest) * (part.rest - rest)).sum(dtype=np.float64))
            at += len(logits)
        n += at
    return max(total / n, 0.0)


def _logits(
    decoder: Decoder, piece: Sequence[int], values: Floats, importance: Floats | None = None
) -> Iterator[Floats]:
    """After each token from START on, some at a time: that token is the first sparse one."""
    cache = decoder.new_cache()
    decoder.extend(cache, piece[:START])
    for at in range(START, len(piece), _CHUNK):
        some = piece[at : at + _CHUNK]
        yield decoder.probe(cache, some, values, importance=importance).logits


def _logs(logits: Floats, ids: NDArray[np.int32]) -> tuple[Floats, Floats]:
    """Log-probabilities of these words, (T, W), and of all others together, (T,)."""
    logs, rest = np.empty(ids.shape, np.float32), np.empty(len(ids), np.float32)
    for row, words, into, at in zip(logits, ids, logs, range(len(ids)), strict=True):
        largest = row.max()
        total = np.exp(row - largest).sum(dtype=np.float64)
        into[:] = row[words] - (largest + np.log(total))
        left = 1 - np.exp(into, dtype=np.float64).sum()
        rest[at] = np.log(max(left, np.exp(_LEAST)))
    return logs, rest
