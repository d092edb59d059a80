"""One optimizer step: batches, gradients averaged by trained tokens, a clipped update."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch

from engine.training.optimizers import Optimizer
from engine.training.packing import Batch


class LossSums(Protocol):
    """What is read of a loss.Loss."""

    @property
    def total(self) -> Any: ...
    @property
    def n(self) -> int: ...
    @property
    def correct(self) -> int: ...


class Model(Protocol):
    """What is read of a model.Trainable."""

    @property
    def trainable(self) -> dict[str, Any]: ...
    def __call__(self, batch: Batch) -> LossSums: ...
    def logits(self, batch: Batch) -> Any: ...
    def train(self, mode: bool = True) -> Any: ...


class Sums(NamedTuple):
    """Over the batches of a step. loss: nats a trained token; grad_norm: of its gradient."""

    loss: float
    n_targets: int
    n_correct: int
    n_tokens: int
    grad_norm: float


def gradients(model: Model, batches: Sequence[Batch]) -> Sums:
    """Leave the gradient of the batches' summed loss in the parameters.

    Sums, so that each trained token counts the same in however many batches they stand.
    """
    clear(model)
    total, n_targets, n_correct = 0.0, 0, 0
    n_tokens = sum(len(batch.token_ids) for batch in batches)
    for batch in batches:
        loss = model(batch)
        value = float(loss.total.detach())
        total, n_targets, n_correct = total + value, n_targets + loss.n, n_correct + loss.correct
        if not math.isfinite(value):
            return Sums(value, n_targets, n_correct, n_tokens, math.nan)
        if loss.n:
            loss.total.backward()
    n = max(n_targets, 1)
    return Sums(total / n, n_targets, n_correct, n_tokens, _norm(model) / n)


def apply(
    model: Model, optimizer: Optimizer, sums: Sums, learning_rate: float, clip: float
) -> None:
    """Change the weights along the mean gradient, at most `clip` long (0 = as it is)."""
    scale = 1 / max(sums.n_targets, 1)
    if clip and sums.grad_norm > clip:
        scale *= clip / sums.grad_norm
    optimizer.step(learning_rate, scale)
    clear(model)


def clear(model: Model) -> None:
    """Give the gradients' memory back."""
    for parameter in model.trainable.values():
        parameter.grad = None


def _norm(model: Model) -> float:
    found = [p.grad for p in model.trainable.values() if p.grad is not None]
    if not found:
        return 0.0
    return float(torch.stack(torch._foreach_norm(found)).norm())


def is_enough(batches: Sequence[Batch], accumulate: int, targets_per_step: int | None) -> bool:
    """Whether these batches are enough for a step."""
    if targets_per_step is None:
        return len(batches) >= accumulate
    return sum(len(batch.targets) for batch in batches) >= targets_per_step
