"""The engine's rule in the student's feed-forwards, and thresholds that follow what they see.

A neuron counts for a token when |activation(gate)| times its importance, or the product, is above
the layer's threshold: engine/kernels/sparse.py skips the others, here they become 0 and have no
gradient.
Letters: T tokens, F intermediate_size.
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

Tensor = Any

_KEPT = 0.9  # of a threshold at each step; the rest is of the step's own quantile
_TOKENS = 96  # that a quantile is taken of


@dataclass
class Seen:
    """Of each layer: neurons above the threshold, and all, of the tokens that skip."""

    active: NDArray[np.int64]
    total: NDArray[np.int64]

    @property
    def shares(self) -> NDArray[np.float64]:
        """Of active neurons, (n_layers,); 1 where nothing was seen."""
        return np.where(self.total, self.active / np.maximum(self.total, 1), 1.0)


def require_rule(config: DecoderConfig, rule: str) -> None:
    """ValueError where the model cannot follow it."""
    if rule == "gate" and not config.gated:
        raise ValueError(
            f"the feed-forward of {config.architecture} has no gate; take rule product"
        )


class Gates:
    """All layers' thresholds.

    now, goal  (n_layers,) float32: those in force while training, and those of the whole goal,
               which evaluations use. A negative one is below everything.
    importance (n_layers, intermediate_size) float32: what gates are multiplied with; it follows
               what the layers see, as long as thresholds do; ones with the rule "product"
    sparse     (T,) bool: which tokens of the batch skip; None = none does
    """

    def __init__(self, config: DecoderConfig, rule: str, goal: float) -> None:
        require_rule(config, rule)
        self.config, self.rule, self._share = config, rule, goal
        self.now = np.full(config.n_layers, -1, np.float32)
        self.goal = np.full(config.n_layers, -1, np.float32)
        self.importance = np.ones((config.n_layers, config.intermediate_size), np.float32)
        self.sparse: Tensor | None = None
        self.at_goal = False  # which of the two is in force
        self.follows: float | None = None  # share that `now` is to leave out; None = all stay
        self.seen: Seen | None = None
        self._met: dict[int, tuple[float, float, NDArray[np.float32]]] = {}

    @property
    def is_ready(self) -> bool:
        """Whether the goal's thresholds are known."""
        return bool((self.goal >= 0).all())

    def layer(self, number: int) -> _Gate:
        """What stands between `up` and `down` of a layer."""
        return _Gate(self, number)

    def count(self) -> Seen:
        """Count from now on, in what is returned."""
        n = self.config.n_layers
        self.seen = Seen(np.zeros(n, np.int64), np.zeros(n, np.int64))
        return self.seen

    def follow(self) -> None:
        """Move the thresholds to what the layers met since the last time."""
        for layer, (now, goal, importance) in self._met.items():
            self.importance[layer] = _moved(self.importance[layer], importance)
            self.now[layer] = _followed(self.now[layer], now)
            self.goal[layer] = _followed(self.goal[layer], goal)
        if self._met and self.follows == self._share:
            self.now[:] = self.goal  # without the ramp's delay
        self._met.clear()

    def sizes(self, number: int, gate: Tensor, product: Tensor) -> Tensor:
        """What is compared with the threshold, (n, F)."""
        if self.rule == "product":
            return product.detach().abs()
        return gate.detach().abs() * torch.from_numpy(self.importance[number])

    def meet(self, number: int, gate: Tensor, product: Tensor) -> None:
        """Note what a layer sees, (n, F) of each: its quantiles and what its neurons count for."""
        assert self.follows is not None
        every = slice(None, None, max(1, len(gate) // _TOKENS))
        gate, product = gate[every].detach().float(), product[every].detach().float()
        importance = self.importance[number]
        if self.rule == "gate":
            importance = importance_of(torch.stack([gate, product]).abs().numpy())
            if self.goal[number] < 0:  # the first quantiles are of the first importance
                self.importance[number] = importance
        some = self.sizes(number, gate, product).reshape(-1)
        quantiles = _quantile(some, self.follows), _quantile(some, self._share)
        self._met[number] = *quantiles, importance


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
        threshold = float((gates.goal if gates.at_goal else gates.now)[self.number])
        above = gates.sizes(self.number, gate, product) > threshold
        if gates.seen is not None or gates.follows is not None:
            self._note(gate, product, above)
        return product * (above | ~gates.sparse[:, None])

    def _note(self, gate: Tensor, product: Tensor, above: Tensor) -> None:
        gates = self.gates
        assert gates.sparse is not None
        if not bool(gates.sparse.any()):
            return
        if gates.seen is not None:
            gates.seen.active[self.number] += int(above[gates.sparse].sum())
            gates.seen.total[self.number] += int(gates.sparse.sum()) * gate.shape[1]
        if gates.follows is not None:
            gates.meet(self.number, gate[gates.sparse], product[gates.sparse])


def _moved(threshold: Any, quantile: Any) -> Any:
    """A step of the running mean, of a number or an array."""
    return _KEPT * threshold + (1 - _KEPT) * quantile


def _followed(threshold: float, quantile: float) -> float:
    """The same of a threshold: the first one is taken as it is, as is one below all."""
    return quantile if threshold < 0 or quantile < 0 else float(_moved(threshold, quantile))


def _quantile(values: Tensor, share: float) -> float:
    """What `share` of the values are not above."""
    k = round(share * len(values))
    return float(torch.kthvalue(values, k).values) if k else -1.0
