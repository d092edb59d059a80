"""AdamW in float32: torch's fused one, and lazy blocks for the embedding and the head.

Fused takes 1.27 ns a parameter on one thread where torch's default takes 5.1.
"""

from __future__ import annotations

from typing import Any

import torch

from engine.training.optimizers import (
    BETA1,
    BETA2,
    EPS,
    Optimizer,
    Parameters,
    State,
    decays,
    is_lazy,
    require_same,
)
from engine.training.optimizers._blockwise import FLOATS, Blockwise


def create(parameters: Parameters, weight_decay: float, threads: int) -> Optimizer:
    """See engine.training.optimizers."""
    return AdamW(parameters, weight_decay, threads)


class AdamW:
    """See engine.training.optimizers.Optimizer."""

    def __init__(self, parameters: Parameters, weight_decay: float, threads: int) -> None:
        self._dense = {name: p for name, p in parameters.items() if not is_lazy(name)}
        lazy = {name: p for name, p in parameters.items() if is_lazy(name)}
        self._lazy = Blockwise(lazy, FLOATS, weight_decay, threads) if lazy else None
        groups = [
            {
                "params": [p for p in self._dense.values() if decays(p)],
                "weight_decay": weight_decay,
            },
            {"params": [p for p in self._dense.values() if not decays(p)], "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        self._adam: Any = (
            torch.optim.AdamW(groups, betas=(BETA1, BETA2), eps=EPS, fused=True) if groups else None
        )

    @property
    def n_bytes(self) -> int:
        """See Optimizer."""
        own: int = sum(8 * p.numel() for p in self._dense.values())
        return own + (self._lazy.n_bytes if self._lazy else 0)

    def step(self, learning_rate: float, scale: float) -> None:
        """See Optimizer. The gradients are scaled in place."""
        if self._adam is not None:
            gradients = [p.grad for p in self._dense.values() if p.grad is not None]
            if scale != 1 and gradients:
                torch._foreach_mul_(gradients, scale)
            for group in self._adam.param_groups:
                group["lr"] = learning_rate
            self._adam.step()
        if self._lazy:
            self._lazy.step(learning_rate, scale)

    def settle(self) -> None:
        """See Optimizer."""
        if self._lazy:
            self._lazy.settle()

    def state(self) -> State:
        """See Optimizer."""
        state: State = {}
        for name, parameter in self._dense.items():
            if kept := self._adam.state.get(parameter):
                state[f"{name}/m"] = kept["exp_avg"].numpy()
                state[f"{name}/v"] = kept["exp_avg_sq"].numpy()
                state[f"{name}/step"] = kept["step"].numpy().reshape(1)
        if self._lazy:
            state |= {f"lazy/{key}": array for key, array in self._lazy.state().items()}
        return state

    def load(self, state: State) -> None:
        """See Optimizer."""
        for name, parameter in self._dense.items():
            if f"{name}/step" not in state:
                continue  # it never had a gradient
            shape = tuple(parameter.shape)
            m, v = (require_same(f"{name}/{k}", state.get(f"{name}/{k}"), shape) for k in "mv")
            step = require_same(f"{name}/step", state[f"{name}/step"], (1,))
            self._adam.state[parameter] = {
                "exp_avg": torch.from_numpy(m.copy()),
                "exp_avg_sq": torch.from_numpy(v.copy()),
                "step": torch.tensor(float(step[0])),
            }
        if self._lazy:
            lazy = {k.removeprefix("lazy/"): a for k, a in state.items() if k.startswith("lazy/")}
            self._lazy.load(lazy)
