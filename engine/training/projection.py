"""Matrices that share their input, multiplied as one: queries with keys and values, gate with up.

Letters: T tokens, K n_in, N the matrices' n_out together, R the adapters' ranks together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from engine.training.bases import FrozenMatrix, Low
from engine.training.products import times, times_transposed, transposed_times

Tensor = Any

RANKS = 16  # R is a multiple of this: kernels take vectors


@dataclass(slots=True, eq=False)
class Adapters:
    """LoRA beside some of a projection's matrices: y[:, rows] += scale · drop(x) Aᵀ Bᵀ.

    a      (R, K) float32: the adapters' A one after the other, then zeros; a_parameters are views
    b      one parameter (n_out, rank) for each
    rows   which of the N outputs each adds to
    wide   (N, R) in the activations' dtype: scale · B at its rows and ranks, else zeros
    """

    a: Tensor
    a_parameters: list[Tensor]
    b: list[Tensor]
    rows: list[slice]
    scale: float
    dropout: float
    wide: Tensor

    def keep(self, x: Tensor, training: bool) -> Tensor | None:
        """0 or 1 / (1 - dropout) for each input, (T, K); None where nothing is dropped."""
        if not self.dropout or not training:
            return None
        kept = torch.empty_like(x).bernoulli_(1 - self.dropout)
        return kept.div_(1 - self.dropout)

    def ranks(self) -> list[slice]:
        """Which of the R each adapter has."""
        rank = self.b[0].shape[1]
        return [slice(i * rank, (i + 1) * rank) for i in range(len(self.b))]

    def refresh(self) -> Tensor:
        """`wide` of the parameters as they are."""
        for rows, ranks, b in zip(self.rows, self.ranks(), self.b, strict=True):
            torch.mul(b.detach(), self.scale, out=self.wide[rows, ranks])
        return self.wide


class Again(NamedTuple):
    """How an input is made again in backward, from what is kept anyway: x = make(*of)."""

    make: Callable[..., Tensor]
    of: tuple[Tensor, ...]


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
    width: Any = torch.float32  # dtype of activations
    is_lean: bool = False  # whether inputs that can be made again are not kept for backward
    rounded: bool = False  # how `weight` is multiplied, see products.py

    def __call__(self, x: Tensor, training: bool = False, again: Again | None = None) -> Tensor:
        """x (T, K) -> (T, N), of one dtype."""
        if not self.is_lean:
            again = None
        if x.dtype != self.width:
            return self(x.to(self.width), training).to(x.dtype)
        if self.weight is not None:
            return _Whole.apply(x, self, again, *self.weights, *self.biases)
        adapters = self.adapters
        if adapters is None:
            return _Frozen.apply(x, self, None, None)
        keep = adapters.keep(x, training)
        return _Frozen.apply(x, self, again, keep, *adapters.a_parameters, *adapters.b)


def _keep(ctx: Any, x: Tensor, again: Again | None, *others: Tensor | None) -> None:
    """Save x, or what it is made of."""
    ctx.n_others, ctx.make = len(others), again and again.make
    ctx.save_for_backward(*others, *(again.of if again else (x,)))


def _kept(ctx: Any) -> tuple[Any, ...]:
    """x and the others."""
    saved, n = ctx.saved_tensors, ctx.n_others
    return ctx.make(*saved[n:]) if ctx.make else saved[n], *saved[:n]


class _Frozen(torch.autograd.Function):  # type: ignore[misc]
    """A frozen base, and adapters where there are any."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, projection: Projection, again: Again | None, keep: Tensor, *_: Tensor
    ) -> Tensor:
        assert projection.base is not None
        adapters, z = projection.adapters, None
        if adapters is None:
            y = projection.base.product(x, None)
        else:
            z = times_transposed(x if keep is None else x * keep, adapters.a.to(x.dtype))
            low = Low(z, adapters.refresh(), adapters.a if keep is None else None)
            y = projection.base.product(x, low)
        if projection.bias is not None:
            y += projection.bias
        ctx.projection = projection
        if adapters is not None:
            _keep(ctx, x, again, keep, z)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
        projection = ctx.projection
        base, adapters, needs_x = projection.base, projection.adapters, ctx.needs_input_grad[0]
        dy = dy.contiguous()
        if adapters is None:
            return (base.input_gradient(dy, None) if needs_x else None), None, None, None
        x, keep, z = _kept(ctx)
        dz = times(dy, adapters.wide)  # `wide` holds the scale
        dropped = x if keep is None else x * keep
        da, db = transposed_times(dz, dropped), transposed_times(z, dy)
        dx = None
        if needs_x:
            dx = base.input_gradient(dy, (dz, adapters.a) if keep is None else None)
            if keep is not None:
                dx += times(dz, adapters.a.to(x.dtype)) * keep
        places = list(zip(adapters.rows, adapters.ranks(), strict=True))
        das = [da[ranks].float() for _, ranks in places]
        dbs = [db[ranks, rows].t().float().mul_(adapters.scale) for rows, ranks in places]
        return dx, None, None, None, *das, *dbs


class _Whole(torch.autograd.Function):  # type: ignore[misc]
    """Matrices and biases that are trained themselves."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, projection: Projection, again: Again | None, *_: Tensor
    ) -> Tensor:
        y = times_transposed(x, projection.weight, projection.rounded)
        if projection.bias is not None:
            y += projection.bias
        ctx.projection = projection
        _keep(ctx, x, again)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
        projection, (x,) = ctx.projection, _kept(ctx)
        rounded, needs_x = projection.rounded, ctx.needs_input_grad[0]
        dx = times(dy, projection.weight, rounded) if needs_x else None
        dw = transposed_times(dy, x, rounded).split(projection.sizes, 0)
        if projection.bias is None:
            return dx, None, None, *dw
        return dx, None, None, *dw, *dy.sum(0).split(projection.sizes)
