"""Frozen matrices: how they are kept, and the two products that training needs of them.

A base is one file, found by its name, with
    freeze(tensors) -> FrozenMatrix    one or several stored matrices of one n_in, stacked by rows
    WIDTH                              torch's dtype of the activations that go in and come out
    IS_LEAN                            optional: memory counts more than a twenty-fifth of the speed
    ROUNDS                             optional: products of float32 beside it, of trained matrices
                                       and of the head, may be of factors rounded to bfloat16
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, NamedTuple, Protocol

from engine.kernels.layout import StoredTensor

Tensor = Any
# what adapters add to an input's gradient, dz a: dz (T, R), a (R, K) float32
LowBack = tuple[Tensor, Tensor]


class Low(NamedTuple):
    """What adapters add to a product, z bᵀ; R is a multiple of 16.

    z (T, R) and b (N, R), in the activations' dtype; a (R, K) float32 where z is x aᵀ, None where
    inputs were dropped
    """

    z: Tensor
    b: Tensor
    a: Tensor | None = None


BASES = frozenset(module.name for module in iter_modules(__path__) if module.name[0] != "_")


class FrozenMatrix(Protocol):
    """W (N, K), never changed. T tokens; activations are of the base's WIDTH."""

    @property
    def n_bytes(self) -> int:
        """Bytes that it keeps."""

    def product(self, x: Tensor, low: Low | None) -> Tensor:
        """x (T, K) -> x Wᵀ + z bᵀ (T, N), a new tensor."""

    def input_gradient(self, dy: Tensor, low: LowBack | None) -> Tensor:
        """dy (T, N) -> dy W + dz a (T, K), a new tensor."""


def freeze(name: str, tensors: Sequence[StoredTensor]) -> FrozenMatrix:
    """The matrices as engine/training/bases/<name>.py keeps them."""
    frozen: FrozenMatrix = _module(name).freeze(tensors)
    return frozen


def width(name: str) -> Any:
    """torch's dtype of a base's activations; ValueError for no such base."""
    return _module(name).WIDTH


def is_lean(name: str) -> bool:
    """Whether activations that can be made again are not kept with a base."""
    return getattr(_module(name), "IS_LEAN", False)


def rounds(name: str) -> bool:
    """Whether what is float32 beside a base is multiplied `rounded`, see products.py."""
    return getattr(_module(name), "ROUNDS", False)


def _module(name: str) -> Any:
    if name not in BASES:
        raise ValueError(f"unknown base {name!r}; this build has {', '.join(sorted(BASES))}")
    return import_module(f"{__name__}.{name}")
