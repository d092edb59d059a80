"""What the neurons of the feed-forwards are like on texts, and what a loss is.

Texts are lists of token ids. A probe runs a piece of one densely, with what thresholds would skip
set to zero behind its first tokens; its loss is the mean KL divergence of the next word's
distribution from the dense one, in nats.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.decoder import CHUNK
from engine.formats import Weight, weight_format

if TYPE_CHECKING:
    from engine.decoder import Decoder

Floats = NDArray[np.float32]
Texts = Sequence[Sequence[int]]

START = 16  # tokens of a text that stay dense: prompts do, and the first ones carry much
LEVELS = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95])
ALL = np.float32(-1)  # a threshold that everything is above
_SAMPLES = 200_000  # (token, neuron) pairs of a layer


def pieces_of(texts: Texts, most: int = 6) -> list[list[int]]:
    """Texts cut to what one call takes, `most` of them from all over; short ends are dropped."""
    cut = [list(text[at : at + CHUNK]) for text in texts for at in range(0, len(text), CHUNK)]
    pieces = [piece for piece in cut if len(piece) >= 2 * START]
    if not pieces:
        raise ValueError(f"thresholds need texts of {2 * START} tokens or more")
    return [pieces[i] for i in np.unique(np.linspace(0, len(pieces) - 1, most).astype(int))]


class Dense(NamedTuple):
    """Of a piece: float16 probabilities (T, vocab_size) of the next words, and the mean of the
    sums of probability times its logarithm."""

    probabilities: NDArray[np.float16]
    negative_entropy: float


def distributions(decoder: Decoder, piece: Sequence[int]) -> Dense:
    """What the dense model says after each token from START on."""
    everything = np.full((decoder.config.n_layers, 2), ALL)
    logs = _log_probabilities(decoder, piece, everything)
    probabilities = np.exp(logs).astype(np.float16)  # half the memory; KL changes by 1e-4 of it
    return Dense(probabilities, _mean_product(probabilities, logs))


def loss(decoder: Decoder, pieces: Texts, reference: Sequence[Dense], values: Floats) -> float:
    """Mean KL from the dense distributions with thresholds `values` (n_layers, 2)."""
    total, n = 0.0, 0
    for piece, dense in zip(pieces, reference, strict=True):
        logs = _log_probabilities(decoder, piece, values)
        mean = dense.negative_entropy - _mean_product(dense.probabilities, logs)
        total, n = total + len(logs) * mean, n + len(logs)
    return max(total / n, 0.0)


def _log_probabilities(decoder: Decoder, piece: Sequence[int], values: Floats) -> Floats:
    logits, _ = decoder.probe(piece, values, START, record=False)
    logits -= logits.max(axis=1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return logits


def _mean_product(probabilities: NDArray[np.float16], logs: Floats) -> float:
    rows = (p.astype(np.float32) @ log for p, log in zip(probabilities, logs, strict=True))
    return float(np.mean([float(row) for row in rows]))


class Statistics(NamedTuple):
    """A layer on the texts. Tables have a row a level of the gate and a column one of the product.

    gates, products  |value| of pairs of a token and a neuron
    levels           thresholds of the gate, of the product (len(LEVELS),) each
    dropped          energy that does not come out of `down`, of all
    active_inputs    share of the neurons whose inputs of `down` are left; column 0: rows of `up`
    """

    gates: Floats
    products: Floats
    levels: tuple[Floats, Floats]
    dropped: NDArray[np.float64]
    active_inputs: NDArray[np.float64]


def statistics(
    decoder: Decoder, pieces: Texts, values: Floats | None = None, start: int = START
) -> list[Statistics]:
    """Of each layer; `values`: thresholds that are in force meanwhile, from token `start` on."""
    rng = np.random.default_rng(0)
    config = decoder.config
    seen: list[list[Floats]] = [[] for _ in range(config.n_layers)]
    in_force = np.full((config.n_layers, 2), ALL) if values is None else values
    per_piece = max(1, _SAMPLES // config.intermediate_size // len(pieces))
    for piece in pieces:
        _, record = decoder.probe(piece, in_force, start, record=True)
        n = min(per_piece, len(piece) - start)
        tokens = start + rng.choice(len(piece) - start, n, replace=False)
        for layer in range(config.n_layers):
            seen[layer].append(np.abs(record[layer][:, tokens]))
    return [
        _of_layer(np.concatenate(parts, axis=1), decoder.weights.matrices[f"layers.{layer}.w_down"])
        for layer, parts in enumerate(seen)
    ]


def _of_layer(sizes: Floats, down: Weight) -> Statistics:
    """sizes: |gate| and |product|, (2, n, intermediate)."""
    gates, products = sizes
    levels = tuple(_thresholds(each) for each in (gates, products))
    energy = np.square(products.astype(np.float64)) * _input_energies(down)
    n = len(LEVELS)
    # pair i falls to level j when it is above the j-th threshold and not above the next
    places = [
        np.searchsorted(at, each.ravel(), "left") - 1
        for at, each in zip(levels, sizes, strict=True)
    ]
    cell = np.maximum(places[0], 0) * n + np.maximum(places[1], 0)
    kept = [
        np.bincount(cell, weights, n * n).reshape(n, n)[::-1, ::-1].cumsum(0).cumsum(1)[::-1, ::-1]
        for weights in (energy.ravel(), None)
    ]
    return Statistics(
        gates, products, (levels[0], levels[1]), 1 - kept[0] / kept[0][0, 0], kept[1] / cell.size
    )


def _thresholds(sizes: Floats) -> Floats:
    found: Floats = np.quantile(sizes, LEVELS).astype(np.float32)
    found[0] = ALL
    return found


def _input_energies(down: Weight) -> NDArray[np.float64]:
    """|column|² of each input, (n_in,)."""
    total = np.zeros(down.n_in)
    for start in range(0, len(down.data), 64):
        rows = weight_format(down.format).dequantize(down.data[start : start + 64])
        total += np.square(rows[:, : down.n_in], dtype=np.float64).sum(axis=0)
    return total
