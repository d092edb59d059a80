"""Matrices that share their input, multiplied as one: queries with keys and values, gate with up.

Letters: T tokens, K n_in, N the matrices' n_out together, r the adapters' rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from engine.training.bases import FrozenMatrix
from engine.training.products import times, times_transposed, transposed_times

Tensor = Any


@dataclass(slots=True, eq=False)
class Adapters:
    """LoRA beside some of a projection's matrices: y[:, rows] += scale · drop(x) Aᵀ Bᵀ.

    a      (n r, K), the adapters' A one after the other; a_parameters are views of it
    b      one (n_out, r) for each
    rows   which of the N outputs each adds to
    """

    a: Tensor
    a_parameters: list[Tensor]
    b: list[Tensor]
    rows: list[slice]
    scale: float
    dropout: float

    def keep(self, x: Tensor, training: bool) -> Tensor | None:
        """0 or 1 / (1 - dropout) for each input, (T, K); None where nothing is dropped."""
        if not self.dropout or not training:
            return None
        kept = torch.empty_like(x).bernoulli_(1 - self.dropout)
        return kept.div_(1 - self.dropout)


@dataclass(slots=True, eq=False)
class Projection:
    """y = x Wᵀ + bias; W (N, K) is frozen, or one buffer that parameters are views of."""

    sizes: list[int]  # n_out of each matrix
    base: FrozenMatrix | None = None
    weight: Tensor | None = None  # (N, K), in place of base
    weights: list[Tensor] = field(default_factory=list)  # parameters, views of weight
    bias: Tensor | None = None  # (N,), frozen or the buffer of `biases`
    biases: list[Tensor] = field(default_factory=list)
    adapters: Adapters | None = None

    def __call__(self, x: Tensor, training: bool = False) -> Tensor:
        """x (T, K) -> (T, N)."""
        if self.weight is not None:
            return _Whole.apply(x, self, *self.weights, *self.biases)
        adapters = self.adapters
        if adapters is None:
            return _Frozen.apply(x, self, None)
        keep = adapters.keep(x, training)
        return _Frozen.apply(x, self, keep, *adapters.a_parameters, *adapters.b)


class _Frozen(torch.autograd.Function):  # type: ignore[misc]
    """A frozen base, and adapters where there are any."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, projection: Projection, keep: Tensor, *_: Tensor) -> Tensor:
        assert projection.base is not None
        y = projection.base.product(x)
        if projection.bias is not None:
            y += projection.bias
        z = None
        if adapters := projection.adapters:
            z = times_transposed(x if keep is None else x * keep, adapters.a)
            for rows, part, b in zip(adapters.rows, _parts(z, adapters), adapters.b, strict=True):
                y[:, rows].addmm_(part, b.t(), alpha=adapters.scale)
        ctx.projection = projection
        ctx.save_for_backward(x if adapters else None, keep, z)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
        projection, (x, keep, z) = ctx.projection, ctx.saved_tensors
        adapters = projection.adapters
        dx = projection.base.input_gradient(dy) if ctx.needs_input_grad[0] else None
        if adapters is None:
            return dx, None, None
        dz, db = torch.empty_like(z), []
        gradients = _parts(dz, adapters)
        for rows, part, b, out in zip(
            adapters.rows, _parts(z, adapters), adapters.b, gradients, strict=True
        ):
            torch.mm(dy[:, rows], b, out=out) if len(gradients) == 1 else out.copy_(dy[:, rows] @ b)
            db.append(transposed_times(dy[:, rows], part).mul_(adapters.scale))
        dz *= adapters.scale
        da = transposed_times(dz, x if keep is None else x * keep)
        if dx is not None:
            dx = (
                dx.addmm_(dz, adapters.a) if keep is None else dx.add_(times(dz, adapters.a) * keep)
            )
        return dx, None, None, *_rows(da, len(db)), *db


def _parts(z: Tensor, adapters: Adapters) -> Sequence[Tensor]:
    """(T, n r) -> n of (T, r)."""
    parts: Sequence[Tensor] = z.chunk(len(adapters.b), 1)
    return parts


def _rows(a: Tensor, n: int) -> Sequence[Tensor]:
    parts: Sequence[Tensor] = a.chunk(n, 0)
    return parts


class _Whole(torch.autograd.Function):  # type: ignore[misc]
    """Matrices and biases that are trained themselves."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, projection: Projection, *_: Tensor) -> Tensor:
        y = times_transposed(x, projection.weight)
        if projection.bias is not None:
            y += projection.bias
        ctx.projection = projection
        ctx.save_for_backward(x)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
        projection, (x,) = ctx.projection, ctx.saved_tensors
        dx = times(dy, projection.weight) if ctx.needs_input_grad[0] else None
        dw = transposed_times(dy, x).split(projection.sizes, 0)
        if projection.bias is None:
            return dx, None, *dw
        return dx, None, *dw, *dy.sum(0).split(projection.sizes)
