"""Frozen matrices: how they are kept, and the two products that training needs of them.

A base is one file, found by its name, with
    freeze(tensors) -> FrozenMatrix    one or several stored matrices of one n_in, stacked by rows
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, Protocol

from engine.kernels.layout import StoredTensor

Tensor = Any

BASES = frozenset(module.name for module in iter_modules(__path__) if module.name[0] != "_")


class FrozenMatrix(Protocol):
    """W (n_out, n_in), never changed. T tokens."""

    @property
    def n_bytes(self) -> int:
        """Bytes that it keeps."""

    def product(self, x: Tensor) -> Tensor:
        """x (T, n_in) -> x Wᵀ (T, n_out), float32, a new tensor."""

    def input_gradient(self, dy: Tensor) -> Tensor:
        """dy (T, n_out) -> dy W (T, n_in), float32, a new tensor."""


def freeze(name: str, tensors: Sequence[StoredTensor]) -> FrozenMatrix:
    """The matrices as engine/training/bases/<name>.py keeps them; ValueError for no such file."""
    if name not in BASES:
        raise ValueError(f"unknown base {name!r}; this build has {', '.join(sorted(BASES))}")
    frozen: FrozenMatrix = import_module(f"{__name__}.{name}").freeze(tensors)
    return frozen
