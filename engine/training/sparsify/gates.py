"""The engine's rule in the student's feed-forwards, and thresholds that follow what they see.

A neuron counts for a token when |activation(gate)| times its importance is above the layer's first
threshold, and the product above its second: engine/kernels/sparse.py skips the others, here they
become 0 and have no gradient. Letters: T tokens, F intermediate_size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from engine.config import DecoderConfig
from engine.sparsity.statistics import importance_of
from engine.training.layers import ACTIVATIONS
from engine.training.sparsify.settings import SparsifySettings

Tensor = Any
Pair = tuple[float, float]  # of gates, of products

_KEPT = 0.9  # of a threshold at each step; the rest is of the step's own quantile
_TOKENS = 96  # that a quantile is taken of


@dataclass
class Seen:
    """Of each layer's neurons, for the tokens that skip: those above both thresholds, those above
    the gate's, and all."""

    active: NDArray[np.int64]
    rows: NDArray[np.int64]
    total: NDArray[np.int64]

    @classmethod
    def nothing(cls, n_layers: int) -> Seen:
        """Before the first token."""
        return cls(*(np.zeros(n_layers, np.int64) for _ in range(3)))

    def shares(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Of active neurons and of rows, (n_layers,) each; 1 where nothing was seen."""
        active, rows = (
            np.where(self.total, some / np.maximum(self.total, 1), 1.0)
            for some in (self.active, self.rows)
        )
        return active, rows


def rows_of(config: DecoderConfig, settings: SparsifySettings) -> float:
    """The share that the gate alone leaves out. ValueError where the model has no gate for it."""
    if config.gated:
        return settings.rows_left_out
    if settings.rows:
        raise ValueError(
            f"the feed-forward of {config.architecture} has no gate; rows must be 0, "
            f"got {settings.rows}"
        )
    return 0.0


class Gates:
    """All layers' thresholds.

    rows, share  what the gates leave out, and what they and the products do together, at the goal
    now, goal    (n_layers, 2) float32, of gates and of products: thresholds in force in training,
                 and those of the whole goal, which evaluations use; -1 is below everything
    importance   (n_layers, intermediate_size) float32: what gates are multiplied with; it follows
                 what the layers see, as long as thresholds do
    sparse       (T,) bool: which tokens of the batch skip; None = none does
    """

    def __init__(self, config: DecoderConfig, rows: float, share: float) -> None:
        self.config, self.rows, self.share = config, rows, share
        self.now = np.full((config.n_layers, 2), -1, np.float32)
        self.goal = np.full((config.n_layers, 2), -1, np.float32)
        self.importance = np.ones((config.n_layers, config.intermediate_size), np.float32)
        self.sparse: Tensor | None = None
        self.at_goal = False  # which of the two is in force
        self.follows: float | None = None  # share that `now` is to leave out; None = all stay
        self.seen: Seen | None = None
        self._met: dict[int, tuple[Pair, Pair, NDArray[np.float32]]] = {}

    @property
    def is_ready(self) -> bool:
        """Whether the goal's thresholds are known."""
        return all(self._is_known(number) for number in range(self.config.n_layers))

    def _is_known(self, number: int) -> bool:
        return bool((self.goal[number] >= 0).any())

    def layer(self, number: int) -> _Gate:
        """What stands between `up` and `down` of a layer."""
        return _Gate(self, number)

    def count(self) -> Seen:
        """Count from now on, in what is returned."""
        self.seen = Seen.nothing(self.config.n_layers)
        return self.seen

    def follow(self) -> None:
        """Move the thresholds to what the layers met since the last time."""
        for layer, (now, goal, importance) in self._met.items():
            self.importance[layer] = _moved(self.importance[layer], importance)
            for thresholds, quantiles in ((self.now, now), (self.goal, goal)):
                thresholds[layer] = [
                    _followed(float(threshold), quantile)
                    for threshold, quantile in zip(thresholds[layer], quantiles, strict=True)
                ]
        if self._met and self.follows == self.share:
            self.now[:] = self.goal  # without the ramp's delay
        self._met.clear()

    def above(self, number: int, gate: Tensor, product: Tensor) -> tuple[Tensor, Tensor]:
        """Which neurons are above both thresholds of a layer, and which above the gate's, (n, F)
        bool."""
        of_gate, of_product = (self.goal if self.at_goal else self.now)[number].tolist()
        rows = self._sizes(number, gate) > of_gate
        return rows & (product.detach().abs() > of_product), rows

    def meet(self, number: int, gate: Tensor, product: Tensor) -> None:
        """Note what a layer sees, (n, F) of each: its quantiles and what its neurons count for."""
        assert self.follows is not None
        every = slice(None, None, max(1, len(gate) // _TOKENS))
        gate, product = gate[every].detach().float(), product[every].detach().float()
        importance = importance_of(torch.stack([gate, product]).abs().numpy())
        if not self._is_known(number):  # the first quantiles are of the first importance
            self.importance[number] = importance
        sizes, products = self._sizes(number, gate), product.abs()
        now, goal = (self._quantiles(sizes, products, s) for s in (self.follows, self.share))
        self._met[number] = now, goal, importance

    def _sizes(self, number: int, gate: Tensor) -> Tensor:
        return gate.detach().abs() * torch.from_numpy(self.importance[number])

    def _quantiles(self, sizes: Tensor, products: Tensor, share: float) -> Pair:
        """Thresholds of gates and of products that leave out so much together."""
        of_gate = _quantile(sizes, share * self.rows / self.share)
        if self.rows == self.share:
            return of_gate, -1.0
        return of_gate, _quantile(products * (sizes > of_gate), share)


@dataclass
class _Gate:
    gates: Gates
    number: int

    def __call__(self, both: Tensor) -> Tensor:
        """both (T, 2 F), gates before ups, or (T, F) without a gate -> (T, F) products."""
        gates = self.gates
        activation = ACTIVATIONS[gates.config.activation]
        if gates.config.gated:
            gate, up = both.chunk(2, 1)
            gate = activation(gate)
            product = gate * up
        else:
            gate = product = activation(both)
        if gates.sparse is None:
            return product
        above, rows = gates.above(self.number, gate, product)
        if bool(gates.sparse.any()):
            self._note(gate, product, above, rows)
        return product * (above | ~gates.sparse[:, None])

    def _note(self, gate: Tensor, product: Tensor, above: Tensor, rows: Tensor) -> None:
        gates, sparse = self.gates, self.gates.sparse
        if gates.seen is not None:
            gates.seen.active[self.number] += int(above[sparse].sum())
            gates.seen.rows[self.number] += int(rows[sparse].sum())
            gates.seen.total[self.number] += above[sparse].numel()
        if gates.follows is not None:
            gates.meet(self.number, gate[sparse], product[sparse])


def _moved(threshold: Any, quantile: Any) -> Any:
    """A step of the running mean, of a number or an array."""
    return _KEPT * threshold + (1 - _KEPT) * quantile


def _followed(threshold: float, quantile: float) -> float:
    """The same of a threshold: the first one is taken as it is, as is one below all."""
    return quantile if threshold < 0 or quantile < 0 else float(_moved(threshold, quantile))


def _quantile(values: Tensor, share: float) -> float:
    """What `share` of the values are not above."""
    values = values.reshape(-1)
    k = round(share * len(values))
    return float(torch.kthvalue(values, k).values) if k else -1.0
