"""Thresholds of the feed-forwards: how much each layer leaves out, for a loss that is given.

The allocation over layers and the two sites (rows of `up` by the gate, inputs of `down` by the
product) is greedy in the sense of TEAL (arXiv:2408.14690), with time in place of a rate: each layer
takes the choice that is best at one price of a loss, and the price is what the budget allows. What
a choice loses is taken to grow with the energy of the products that it drops, at a rate that one
probe a layer measures; what it saves is measured on this machine (engine/sparsity/costs.py). The
loss of the whole is then measured, and the price corrected by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.kernels.sparse import BY_INPUTS, BY_ROWS, DENSE
from engine.sparse_formats import Copy
from engine.sparsity import costs as costs_module
from engine.sparsity.costs import Costs
from engine.sparsity.neurons import (
    ALL,
    LEVELS,
    Dense,
    Floats,
    Statistics,
    Texts,
    distributions,
    loss,
    pieces_of,
    statistics,
)

if TYPE_CHECKING:
    from engine.decoder import Decoder


_PROBED = 5  # the level, of the products, that a layer's loss is measured at


class Layer(NamedTuple):
    """A line of the report."""

    path: int  # DENSE, BY_ROWS or BY_INPUTS
    active_rows: float  # share of the neurons whose rows of `up` are read
    active_inputs: float  # … whose weights in `down` are
    kl: float  # what the layer is expected to lose, in nats
    saved_s: float  # a token, expected


@dataclass(frozen=True)
class Thresholds:
    """values float32 (n_layers, 2) and paths int64 (n_layers,) for engine.sparse_formats.Sparse.

    kl   measured on the texts of the calibration, all layers together
    """

    values: Floats
    paths: NDArray[np.int64]
    layers: tuple[Layer, ...] = ()
    kl: float = 0.0

    @property
    def is_dense(self) -> bool:
        """Whether nothing is left out anywhere."""
        return not self.paths.any()


def dense(n_layers: int) -> Thresholds:
    """Nothing is left out."""
    layers = (Layer(DENSE, 1.0, 1.0, 0.0, 0.0),) * n_layers
    return Thresholds(np.full((n_layers, 2), ALL), np.zeros(n_layers, np.int64), layers)


def measure_costs(decoder: Decoder, copies: Mapping[str, Copy], texts: Texts) -> Costs:
    """What skipping saves with this machine and these threads, see costs.measure."""
    stats = statistics(decoder, pieces_of(texts)[:1])
    sizes = [(float(np.median(each.gates)), float(np.median(each.products))) for each in stats]
    return costs_module.measure(decoder, copies, sizes)


def calibrate(decoder: Decoder, texts: Texts, budget: float, costs: Costs) -> Thresholds:
    """The thresholds that save most time at a KL of at most `budget` nats on these texts.

    Layers in which nothing pays stay dense, and all do if nothing does.
    """
    pieces = pieces_of(texts)
    reference = [distributions(decoder, piece) for piece in pieces]
    layers = statistics(decoder, pieces)
    rates = _losses(decoder, pieces[:1], reference[:1], layers)
    choices = [_Choices.of(stats, rate, costs) for stats, rate in zip(layers, rates, strict=True)]
    best, allowed = dense(len(layers)), budget
    for _ in range(4):
        found = _allocate(layers, choices, allowed)
        if found.is_dense:
            break
        kl = loss(decoder, pieces, reference, found.values)
        found = replace(found, kl=kl)
        if kl <= budget and _saved(found) > _saved(best):
            best = found
        if 0.9 * budget < kl <= budget:
            break
        allowed *= min(max(0.95 * budget / max(kl, 1e-9), 0.2), 5.0)
    return best


def exact(decoder: Decoder, texts: Texts, costs: Costs) -> Thresholds:
    """Thresholds of 0: what ReLU makes zero is left out, and nothing else. Dense without ReLU."""
    n_layers = decoder.config.n_layers
    if decoder.config.activation != "relu":
        return dense(n_layers)
    values, rows = np.zeros((n_layers, 2), np.float32), []
    layers = statistics(decoder, pieces_of(texts))
    for stats in layers:
        active = float((stats.gates > 0).mean()), float((stats.products > 0).mean())
        rows.append(_cheapest(costs, decoder.config.gated, active))
    paths = np.array([row.path for row in rows], np.int64)
    return Thresholds(values, paths, tuple(rows))


def forced(decoder: Decoder, texts: Texts, share: float) -> Thresholds:
    """So many of the neurons left out in every layer, whatever is lost and whether or not it pays.

    Gated models: rows of `up` and inputs of `down` by the gate; others: inputs only. The shares are
    those of the texts, met layer by layer: what is left out below changes what is seen above.
    """
    config, pieces = decoder.config, pieces_of(texts)
    values = dense(config.n_layers).values
    site = 0 if config.gated else 1
    for _ in range(3):
        stats = statistics(decoder, pieces, values, start=0)
        for layer, seen in enumerate(stats):
            sizes = (seen.gates, seen.products)[site]
            values[layer, site] = np.quantile(sizes, share)
    path = BY_ROWS if config.gated else BY_INPUTS
    rows = tuple(Layer(path, 1 - share, 1 - share, np.nan, np.nan) for _ in range(config.n_layers))
    return Thresholds(values, np.full(config.n_layers, path, np.int64), rows, np.nan)


def _losses(
    decoder: Decoder, pieces: Texts, reference: Sequence[Dense], layers: Sequence[Statistics]
) -> list[float]:
    """KL of each layer for a unit of dropped energy."""
    rates = []
    for layer, stats in enumerate(layers):
        values = dense(len(layers)).values
        values[layer, 1] = stats.levels[1][_PROBED]
        energy = stats.dropped[0, _PROBED]
        rates.append(loss(decoder, pieces, reference, values) / max(energy, 1e-30))
    return rates


# ---- the allocation -----------------------------------------------------------------------------


class _Choices(NamedTuple):
    """Of a layer, for each pair of levels: seconds saved a token, KL lost, and the path."""

    saved: NDArray[np.float64]
    lost: NDArray[np.float64]
    paths: NDArray[np.int64]

    @classmethod
    def of(cls, stats: Statistics, rate: float, costs: Costs) -> _Choices:
        n = len(LEVELS)
        by_rows = costs.saved(BY_ROWS, stats.active_inputs[:, :1], stats.active_inputs)
        # where all rows are read, the gate has no threshold
        by_inputs = np.full((n, n), -np.inf)
        by_inputs[0] = costs.saved(BY_INPUTS, 1.0, stats.active_inputs[0])
        saved = np.maximum(by_rows, by_inputs)
        paths = np.where(by_rows >= by_inputs, BY_ROWS, BY_INPUTS)
        paths, saved = np.where(saved > 0, paths, DENSE), np.maximum(saved, 0)
        return cls(saved, rate * stats.dropped, paths)

    def best(self, price: float) -> tuple[int, int]:
        """The levels with most time left when a nat costs so many seconds; (0, 0) is dense."""
        worth = np.where(self.paths != DENSE, self.saved - price * self.lost, 0)
        at = np.unravel_index(int(worth.argmax()), worth.shape)
        return (int(at[0]), int(at[1])) if worth[at] > 0 else (0, 0)


def _allocate(
    layers: Sequence[Statistics], choices: Sequence[_Choices], allowed: float
) -> Thresholds:
    """The best choices that are expected to lose `allowed` together at most."""
    low, high = 1e-9, 1e9  # seconds a nat
    for _ in range(80):
        price = (low * high) ** 0.5
        lost = sum(each.lost[each.best(price)] for each in choices)
        low, high = (low, price) if lost <= allowed else (price, high)
    values, rows = dense(len(layers)).values, []
    for layer, (stats, each) in enumerate(zip(layers, choices, strict=True)):
        at = each.best(high)
        path = int(each.paths[at]) if at != (0, 0) else DENSE
        if path != DENSE:
            values[layer] = stats.levels[0][at[0]], stats.levels[1][at[1]]
        active = (1.0, 1.0)
        if path != DENSE:
            rows_read = stats.active_inputs[at[0], 0] if path == BY_ROWS else 1.0
            active = float(rows_read), float(stats.active_inputs[at])
        rows.append(Layer(path, *active, float(each.lost[at]), float(each.saved[at])))
    paths = np.array([row.path for row in rows], np.int64)
    return Thresholds(values, paths, tuple(rows))


def _cheapest(costs: Costs, gated: bool, active: tuple[float, float]) -> Layer:
    """The path that pays at these shares of rows and inputs."""
    inputs = Layer(BY_INPUTS, 1.0, active[1], 0.0, float(costs.saved(BY_INPUTS, 1.0, active[1])))
    found = [Layer(DENSE, 1.0, 1.0, 0.0, 0.0), inputs]
    if gated:
        found.append(Layer(BY_ROWS, *active, 0.0, float(costs.saved(BY_ROWS, *active))))
    return max(found, key=lambda layer: layer.saved_s)


def _saved(thresholds: Thresholds) -> float:
    return sum(layer.saved_s for layer in thresholds.layers)
