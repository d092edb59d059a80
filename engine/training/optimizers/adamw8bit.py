"""AdamW with states of 8 bits: 2 bytes a weight where float32 takes 8, and no slower.

Tensors of fewer than 4,096 weights keep float32: they take no room, and norms are touchy. So do
those that are no whole vectors of 16, which no model of use has.
"""

from __future__ import annotations

from engine.training.optimizers import Optimizer, Parameters, State
from engine.training.optimizers._blockwise import CODES, Blockwise
from engine.training.optimizers.adamw import AdamW

SMALL, LANES = 4096, 16


def create(parameters: Parameters, weight_decay: float, threads: int) -> Optimizer:
    """See engine.training.optimizers."""
    return AdamW8bit(parameters, weight_decay, threads)


class AdamW8bit:
    """See engine.training.optimizers.Optimizer."""

    def __init__(self, parameters: Parameters, weight_decay: float, threads: int) -> None:
        small = {
            name: p for name, p in parameters.items() if p.numel() < SMALL or p.numel() % LANES
        }
        large = {name: p for name, p in parameters.items() if name not in small}
        self._parts: dict[str, Optimizer] = {}
        if small:
            self._parts["small"] = AdamW(small, weight_decay, threads)
        if large:
            self._parts["large"] = Blockwise(large, CODES, weight_decay, threads)

    @property
    def n_bytes(self) -> int:
        """See Optimizer."""
        return sum(part.n_bytes for part in self._parts.values())

    def step(self, learning_rate: float, scale: float) -> None:
        """See Optimizer."""
        for part in self._parts.values():
            part.step(learning_rate, scale)

    def settle(self) -> None:
        """See Optimizer."""
        for part in self._parts.values():
            part.settle()

    def state(self) -> State:
        """See Optimizer."""
        return {
            f"{name}/{key}": array
            for name, part in self._parts.items()
            for key, array in part.state().items()
        }

    def load(self, state: State) -> None:
        """See Optimizer."""
        for name, part in self._parts.items():
            prefix = f"{name}/"
            part.load({k.removeprefix(prefix): a for k, a in state.items() if k.startswith(prefix)})
