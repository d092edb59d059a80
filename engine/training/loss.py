"""Cross-entropy over the rows that have a label, a chunk of rows at a time.

A chunk's gradient is computed beside its loss, so that no logits are kept: 128 rows of a vocabulary
of 49,152 are 25 MB and stay in the cache, all rows of a batch would be 400 MB and several times
that in backward. Letters: n rows with a label, E hidden_size, V vocab_size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from engine.training.kernels import cross_entropy as kernels
from engine.training.ops.team import run
from engine.training.products import times, times_transposed, transposed_times

Tensor = Any

_CHUNK_BYTES = 25 << 20  # of logits


class Loss(NamedTuple):
    """total: scalar, the sum of -log p over n labels; correct: how often none was likelier."""

    total: Tensor
    n: int
    correct: int


@dataclass(slots=True, eq=False)
class Head:
    """What turns hidden states into logits: weight (V, E), bias (V,) or None.

    mass     gradients go back through the columns of the vocabulary that hold this share of a
             chunk's |p - y|, 1.0 = through all. At 0.999 these are a tenth of the columns.
    rounded  how its products are made, see products.py
    """

    weight: Tensor
    bias: Tensor | None = None
    scale: float = 1.0
    mass: float = 1.0
    softcap: float = 0.0  # c: logits as c tanh(logit / c); 0 = off
    rounded: bool = False

    def logits(self, h: Tensor) -> Tensor:
        """h (n, E) -> (n, V)."""
        logits = times_transposed(h, self.weight.detach(), self.rounded)
        if self.bias is not None:
            logits += self.bias.detach()
        if self.scale != 1:
            logits.mul_(self.scale)
        if self.softcap:
            logits.div_(self.softcap).tanh_().mul_(self.softcap)
        return logits

    def steepness(self, logits: Tensor) -> Tensor | None:
        """dlogits / dlogits before the softcap; None = 1 everywhere."""
        return 1 - (logits / self.softcap).square() if self.softcap else None


def cross_entropy(h: Tensor, head: Head, targets: Tensor) -> Loss:
    """h (n, E) float32, targets (n,) int64."""
    total, correct = _CrossEntropy.apply(h, head.weight, head.bias, head, targets)
    return Loss(total, len(targets), int(correct))


class _CrossEntropy(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(
        ctx: Any, h: Tensor, weight: Tensor, bias: Tensor | None, head: Head, targets: Tensor
    ) -> tuple[Tensor, Tensor]:
        needs = ctx.needs_input_grad[:3]
        gradients = [
            torch.zeros_like(x) if needed else None
            for x, needed in zip((h, weight, bias), needs, strict=True)
        ]
        log_sums, found, hits = torch.empty(3, len(h))
        rows = max(1, _CHUNK_BYTES // (4 * len(weight)))
        for start in range(0, len(h), rows):
            part = slice(start, min(start + rows, len(h)))
            logits, labels = head.logits(h[part]), targets[part]
            results = log_sums[part], found[part], hits[part]
            run(kernels.measure, len(labels), logits, labels, *results, logits.shape[1])
            if any(needs):
                steepness = head.steepness(logits)
                mass = _differentiate(logits, labels, log_sums[part], head.scale)
                if steepness is not None:
                    logits *= steepness
                _add_gradients(logits, mass, h[part], head, part, gradients)
        ctx.save_for_backward(*gradients)
        correct = hits.sum()
        ctx.mark_non_differentiable(correct)
        return (log_sums.double() - found.double()).sum().float(), correct

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Any, ...]:
        found = ctx.saved_tensors
        if grad != 1:  # a pass over what is as large as the head, where that is trained
            found = [None if d is None else d * grad for d in found]
        return *found, None, None


def _differentiate(logits: Tensor, labels: Tensor, log_sums: Tensor, scale: float) -> Tensor:
    """logits (rows, V) to their gradient, before scaling; returns the sum of its sizes (V,)."""
    mass = torch.zeros(torch.get_num_threads(), logits.shape[1])
    arguments = logits, labels, log_sums, mass, logits.shape[1], float(scale)
    run(kernels.differentiate, len(labels), *arguments)
    return mass.sum(0)


def _add_gradients(
    d: Tensor, mass: Tensor, h: Tensor, head: Head, rows: slice, gradients: list[Tensor | None]
) -> None:
    """Add what d = dloss / dlogits (rows, V) gives to the gradients of h, weight and bias."""
    dh, d_weight, d_bias = gradients
    weight, columns = head.weight.detach(), heaviest(mass, head.mass)
    if columns is not None:
        d, weight = d.index_select(1, columns), weight.index_select(0, columns)
    if dh is not None:
        dh[rows] = times(d, weight, head.rounded)
    for gradient, step in (
        (d_weight, None if d_weight is None else transposed_times(d, h, head.rounded)),
        (d_bias, None if d_bias is None else d.sum(0)),
    ):
        if gradient is not None:
            gradient.add_(step) if columns is None else gradient.index_add_(0, columns, step)


def heaviest(mass: Tensor, share: float) -> Tensor | None:
    """The fewest columns that hold a share of all mass (V,), ascending; None = all columns."""
    if share >= 1:
        return None
    ascending = mass.sort().values
    light = ascending.cumsum(0) <= (1 - share) * mass.sum()
    n_light = int(light.sum())
    return (mass >= ascending[min(n_light, len(mass) - 1)]).nonzero()[:, 0]
