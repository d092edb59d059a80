"""Optimizers: one file each, found by its name.

A module offers `create(parameters, lazy, weight_decay, threads) -> Optimizer`. Modules whose names
begin with an underscore are parts of optimizers.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

OPTIMIZERS = tuple(sorted(m.name for m in iter_modules(__path__) if not m.name.startswith("_")))
BETA1, BETA2, EPS = 0.9, 0.999, 1e-8

Parameters = Mapping[str, Any]  # canonical name: torch.nn.Parameter, float32
State = dict[str, NDArray[Any]]


class Optimizer(Protocol):
    """Changes parameters by their gradients."""

    def step(self, learning_rate: float, scale: float) -> None:
        """One step along `scale` times the gradients; a parameter without one is left alone."""

    def settle(self) -> None:
        """Apply what lazily updated weights have missed: before the weights are read as a whole."""

    def state(self) -> State:
        """Everything that the next step depends on but the parameters, as arrays by name."""

    def load(self, state: State) -> None:
        """What state() gave; ValueError when it is of other parameters."""

    @property
    def n_bytes(self) -> int:
        """Memory of the states."""


def optimizer(
    name: str, parameters: Parameters, weight_decay: float = 0.0, threads: int = 1
) -> Optimizer:
    """engine/training/optimizers/<name>.py over the parameters.

    The rows of the embedding and of the head that a batch does not touch have no gradient: these
    are updated lazily. Weight decay is not for norms and biases, whose zero means something else.
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"unknown optimizer {name!r}; this build has {', '.join(OPTIMIZERS)}")
    module = import_module(f"{__name__}.{name}")
    return cast(Optimizer, module.create(parameters, weight_decay, threads))


def is_lazy(name: str) -> bool:
    """Whether most rows of the parameter have no gradient in most steps."""
    return name in ("embedding", "head")


def decays(parameter: Any) -> bool:
    """Whether weight decay is for it."""
    return bool(parameter.ndim >= 2)


def require_same(name: str, found: NDArray[Any] | None, shape: tuple[int, ...]) -> NDArray[Any]:
    """`found` if it has the shape; ValueError in one line."""
    if found is None or found.shape != shape:
        what = "is missing" if found is None else f"has shape {found.shape}, not {shape}"
        raise ValueError(f"the optimizer's state of another model: {name} {what}")
    return np.ascontiguousarray(found)
