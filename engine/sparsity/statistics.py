"""What thresholds would leave of each layer on texts, and how much of its output goes with that.

Of tokens from all over the texts, the sizes of what each site compares with its threshold: the
gate's activations and the products of the feed-forward, the inputs of q, k and v, and those of o.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.formats import Weight, weight_format
from engine.kernels.tables import N_SITES
from engine.sparsity.losses import ALL, START, Floats, Texts

if TYPE_CHECKING:
    from engine.decoder import Decoder

Numbers = NDArray[np.float64]

LEVELS = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95])
# the last ones of a piece, which see most of it: what is recorded of all layers takes memory
_TOKENS = 16
_SAMPLES = 50_000  # (token, neuron) pairs of a layer
LEAST_IMPORTANCE = 0.01  # above 0: a gate that is not 0 counts
_SLAB = 16  # groups of rows that are dequantised at a time


class Neurons(NamedTuple):
    """A feed-forward. Tables have a row a level of the gate and a column one of the product.

    importance     of each neuron, float32 (intermediate_size,), about 1: see importance_of
    levels         thresholds of the gate times the importance, of the product
    dropped        energy that does not come out of `down`, of all
    active_inputs  share of the neurons whose inputs of `down` are left; column 0: rows of `up`
    """

    importance: Floats
    levels: tuple[Floats, Floats]
    dropped: Numbers
    active_inputs: Numbers


class Inputs(NamedTuple):
    """The inputs of one or more matrices. Tables have an entry a level.

    levels   thresholds
    dropped  energy that does not come out, of all
    active   share of the inputs that are left
    """

    levels: Floats
    dropped: Numbers
    active: Numbers


class Statistics(NamedTuple):
    """A layer on the texts."""

    neurons: Neurons
    qkv: Inputs
    o: Inputs

    def thresholds(self, level: int) -> tuple[float, ...]:
        """Of each site at one level, each as if it were alone."""
        found = (*self.neurons.levels, self.qkv.levels, self.o.levels)
        return tuple(float(levels[level]) for levels in found)


def statistics(
    decoder: Decoder,
    pieces: Texts,
    levels: Sequence[float] | Numbers = LEVELS,
    values: Floats | None = None,
    start: int = START,
    importance: Floats | None = None,
) -> list[Statistics]:
    """Of each layer.

    levels      shares that thresholds leave out, the first one 0: there everything is left
    values      thresholds that are in force meanwhile, from token `start` on
    importance  of theirs (n_layers, intermediate_size), which is kept; None: it is measured
    """
    in_force = np.full((decoder.config.n_layers, N_SITES), ALL) if values is None else values
    samples = _samples(decoder, pieces, in_force, start, importance)
    found = []
    for layer, (some, others) in enumerate(zip(*samples, strict=True)):
        kept = importance_of(some) if importance is None else importance[layer]
        some[0] *= kept
        found.append(_of_layer(decoder, layer, kept, some, others, np.asarray(levels)))
    return found


def _samples(
    decoder: Decoder, pieces: Texts, values: Floats, start: int, importance: Floats | None
) -> tuple[Floats, Floats]:
    """Sizes of some tokens of all pieces: |gate| and |product| (n_layers, 2, n, intermediate_size),
    inputs of q, k, v and of o (n_layers, 2, n, widest)."""
    rng = np.random.default_rng(0)
    most = max(1, _SAMPLES // decoder.config.intermediate_size // len(pieces))

    def sample(piece: Sequence[int]) -> list[Floats]:  # its record goes before the next one's comes
        n = min(_TOKENS, len(piece) - start)
        seen = decoder.probe(decoder.new_cache(), piece, values, start, n, importance)
        tokens = rng.choice(n, min(most, n), replace=False)
        some = seen.neurons[:, :, tokens], seen.inputs[:, :, tokens]
        return [np.abs(sizes, out=sizes) for sizes in some]

    neurons, inputs = zip(*map(sample, pieces), strict=True)
    return np.concatenate(neurons, axis=2), np.concatenate(inputs, axis=2)


def importance_of(sizes: Floats) -> Floats:
    """How large a neuron's row of `up` mostly is, float32 (intermediate,), 1 on average.

    sizes   |gate| and |product| of tokens, (2, n, intermediate)

    The mean of |up| over the tokens, each as much as its gate is open. A gate times it says better
    than the gate alone what comes of the neuron: at 70 % left out of SmolLM2-135M the loss is 1.0
    instead of 1.6 nats, at 30 % .04 instead of .08, and no more is read for it.
    """
    gates, products = sizes.sum(axis=1, dtype=np.float64)
    ups = products / np.maximum(gates, 1e-30)
    mean = ups[gates > 0].mean() if (gates > 0).any() else 1.0
    ups = np.where(gates > 0, ups / max(mean, 1e-30), 1.0)
    return np.maximum(ups, LEAST_IMPORTANCE).astype(np.float32)


def _of_layer(
    decoder: Decoder,
    layer: int,
    importance: Floats,
    neurons: Floats,
    inputs: Floats,
    levels: Numbers,
) -> Statistics:
    """neurons: |gate| times the importance and |product|, (2, n, intermediate); inputs: (2, n,
    widest)."""
    matrices = decoder.weights.matrices

    def energies(*names: str) -> Numbers:
        total: Numbers = np.sum(
            [input_energies(matrices[f"layers.{layer}.{name}"]) for name in names], 0
        )
        return total

    return Statistics(
        _neurons(importance, neurons, energies("w_down"), levels),
        _inputs(inputs[0], energies("wq", "wk", "wv"), levels),
        _inputs(inputs[1], energies("wo"), levels),
    )


def _neurons(importance: Floats, sizes: Floats, energies: Numbers, levels: Numbers) -> Neurons:
    thresholds = _thresholds(sizes[0], levels), _thresholds(sizes[1], levels)
    energy = np.square(sizes[1].astype(np.float64)) * energies
    n = len(levels)
    places = [_places(each, at) for each, at in zip(sizes, thresholds, strict=True)]
    cell = places[0] * n + places[1]
    kept = [
        _tail(_tail(np.bincount(cell, weights, n * n).reshape(n, n)).T).T
        for weights in (energy.ravel(), None)
    ]
    dropped = _dropped(kept[0], kept[0][0, 0])
    return Neurons(importance, thresholds, dropped, kept[1] / cell.size)


def _inputs(sizes: Floats, energies: Numbers, levels: Numbers) -> Inputs:
    sizes = np.ascontiguousarray(sizes[:, : len(energies)])
    thresholds = _thresholds(sizes, levels)
    energy = np.square(sizes.astype(np.float64)) * energies
    cell = _places(sizes, thresholds)
    kept, n_left = (
        _tail(np.bincount(cell, weights, len(LEVELS))) for weights in (energy.ravel(), None)
    )
    return Inputs(thresholds, _dropped(kept, kept[0]), n_left / cell.size)


def _dropped(kept: Numbers, total: float) -> Numbers:
    """Shares of the energy that are not kept; where only zeros are left out exactly 0."""
    dropped = 1 - kept / max(total, 1e-30)
    return np.where(dropped < 1e-9, 0.0, dropped)


def _places(sizes: Floats, thresholds: Floats) -> NDArray[np.intp]:
    """The level of each value: it is above that one's threshold and not above the next."""
    return np.maximum(np.searchsorted(thresholds, sizes.ravel(), "left") - 1, 0)


def _tail(counts: NDArray[Any]) -> NDArray[Any]:
    """Sums from each row to the last."""
    return counts[::-1].cumsum(axis=0)[::-1]


def _thresholds(sizes: Floats, levels: Numbers) -> Floats:
    found: Floats = np.quantile(sizes, levels).astype(np.float32)
    found[0] = ALL
    return found


def input_energies(weight: Weight) -> Numbers:
    """|column|² of each input, (n_in,)."""
    total = np.zeros(weight.n_in)
    for start in range(0, len(weight.data), _SLAB):
        rows = weight_format(weight.format).dequantize(weight.data[start : start + _SLAB])
        total += np.square(rows[:, : weight.n_in]).sum(axis=0, dtype=np.float64)
    return total
