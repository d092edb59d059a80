"""The engine's rule in the student's feed-forwards, and thresholds that follow what they see.

A neuron counts for a token when |activation(gate)|, or the product, is above the layer's threshold:
engine/kernels/sparse.py skips the others, here they become 0 and have no gradient.
Letters: T tokens, F intermediate_size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from engine.config import DecoderConfig
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
    sparse     (T,) bool: which tokens of the batch skip; None = none does
    """

    def __init__(self, config: DecoderConfig, rule: str, goal: float) -> None:
        require_rule(config, rule)
        self.config, self.rule, self._share = config, rule, goal
        self.now = np.full(config.n_layers, -1, np.float32)
        self.goal = np.full(config.n_layers, -1, np.float32)
        self.sparse: Tensor | None = None
        self.at_goal = False  # which of the two is in force
        self.follows: float | None = None  # share that `now` is to leave out; None = all stay
        self.seen: Seen | None = None
        self._met: dict[int, tuple[float, float]] = {}

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
        for layer, (now, goal) in self._met.items():
            self.now[layer] = _moved(self.now[layer], now)
            self.goal[layer] = _moved(self.goal[layer], goal)
        if self._met and self.follows == self._share:
            self.now[:] = self.goal  # without the ramp's delay
        self._met.clear()

    def meet(self, number: int, sizes: Tensor) -> None:
        """Note quantiles of what a layer sees, sizes (n, F)."""
        some = sizes[:: max(1, len(sizes) // _TOKENS)].reshape(-1).float()
        assert self.follows is not None
        self._met[number] = _quantile(some, self.follows), _quantile(some, self._share)


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
        sizes = (gate if gates.rule == "gate" else product).detach().abs()
        threshold = float((gates.goal if gates.at_goal else gates.now)[self.number])
        above = sizes > threshold
        if gates.seen is not None or gates.follows is not None:
            self._note(sizes, above)
        return product * (above | ~gates.sparse[:, None])

    def _note(self, sizes: Tensor, above: Tensor) -> None:
        gates = self.gates
        assert gates.sparse is not None
        if not bool(gates.sparse.any()):
            return
        if gates.seen is not None:
            gates.seen.active[self.number] += int(above[gates.sparse].sum())
            gates.seen.total[self.number] += int(gates.sparse.sum()) * sizes.shape[1]
        if gates.follows is not None:
            gates.meet(self.number, sizes[gates.sparse])


def _moved(threshold: float, quantile: float) -> float:
    """A step of the running quantile; the first one is taken as it is, as is one below all."""
    if threshold < 0 or quantile < 0:
        return quantile
    return _KEPT * threshold + (1 - _KEPT) * quantile


def _quantile(values: Tensor, share: float) -> float:
    """What `share` of the values are not above."""
    k = round(share * len(values))
    return float(torch.kthvalue(values, k).values) if k else -1.0
