"""Cross-entropy over the rows that have a label, a chunk of rows at a time.

A chunk's gradient is computed beside its loss, so that no logits are kept: 64 rows of a vocabulary
of 49,152 are 12 MB, all rows of a batch would be 400 MB and several times that in backward.
Letters: n rows with a label, E hidden_size, V vocab_size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from engine.training.products import times, times_transposed, transposed_times

Tensor = Any

CHUNK = 256  # rows


class Loss(NamedTuple):
    """total: scalar, the sum of -log p over n labels; correct: how often a label was likeliest."""

    total: Tensor
    n: int
    correct: int


@dataclass(slots=True, eq=False)
class Head:
    """What turns hidden states into logits: weight (V, E), bias (V,) or None.

    mass  gradients go back through the columns of the vocabulary that hold this share of a chunk's
          |p - y|, 1.0 = through all. At 0.999 these are a tenth of the columns.
    """

    weight: Tensor
    bias: Tensor | None = None
    scale: float = 1.0
    mass: float = 1.0

    def logits(self, h: Tensor) -> Tensor:
        """h (n, E) -> (n, V)."""
        logits = times_transposed(h, self.weight.detach())
        if self.bias is not None:
            logits += self.bias.detach()
        return logits.mul_(self.scale) if self.scale != 1 else logits


def cross_entropy(h: Tensor, head: Head, targets: Tensor) -> Loss:
    """h (n, E) float32, targets (n,) int64."""
    weight, bias = head.weight, head.bias
    total, correct = _CrossEntropy.apply(h, weight, bias, head, targets)
    return Loss(total, len(targets), int(correct))


class _CrossEntropy(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(
        ctx: Any, h: Tensor, weight: Tensor, bias: Tensor | None, head: Head, targets: Tensor
    ) -> tuple[Tensor, Tensor]:
        needs = ctx.needs_input_grad[:3]
        dh: Tensor = torch.zeros_like(h) if needs[0] else None
        dw = torch.zeros_like(weight) if needs[1] else None
        db = torch.zeros_like(bias) if needs[2] else None
        total = torch.zeros((), dtype=torch.float64)
        correct = torch.zeros((), dtype=torch.int64)
        for start in range(0, len(h), CHUNK):
            rows = slice(start, start + CHUNK)
            labels = targets[rows]
            logits = head.logits(h[rows])
            at = torch.arange(len(labels))
            correct += (logits.argmax(1) == labels).sum()
            log_total = logits.logsumexp(1)
            total += (log_total - logits[at, labels]).double().sum()
            if not any(needs):
                continue
            p = logits.sub_(log_total[:, None]).exp_()
            p[at, labels] -= 1
            _gradients(p, h[rows], head, dh[rows] if needs[0] else None, dw, db)
        ctx.save_for_backward(dh, dw, db)
        ctx.mark_non_differentiable(correct)
        return total.float(), correct

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Any, ...]:
        gradients = (None if d is None else d * grad for d in ctx.saved_tensors)
        return *gradients, None, None


def _gradients(
    p: Tensor, h: Tensor, head: Head, dh: Tensor | None, dw: Tensor | None, db: Tensor | None
) -> None:
    """Add what p - y (rows, V), overwritten, gives to the gradients."""
    if head.scale != 1:
        p *= head.scale
    weight = head.weight.detach()
    columns = heaviest(p, head.mass)
    if columns is not None:
        p, weight = p[:, columns], weight[columns]
    if dh is not None:
        dh += times(p, weight)
    if dw is not None:
        step = transposed_times(p, h)
        dw.add_(step) if columns is None else dw.index_add_(0, columns, step)
    if db is not None:
        db.add_(p.sum(0)) if columns is None else db.index_add_(0, columns, p.sum(0))


def heaviest(p: Tensor, mass: float) -> Tensor | None:
    """The fewest columns of p (rows, V) that hold `mass` of its absolute sum; None = all."""
    if mass >= 1:
        return None
    weights = p.abs().sum(0)
    order = weights.argsort(descending=True)
    share = weights[order].cumsum(0)
    n = int((share < mass * share[-1]).sum()) + 1
    return order[:n].sort().values
