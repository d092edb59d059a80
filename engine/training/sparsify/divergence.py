"""KL divergence of the student's next words from the teacher's, over the whole vocabulary.

As for the cross-entropy (engine/training/loss.py), a chunk's gradient is computed beside its loss:
no logits are kept. Letters: n rows, E hidden_size, V vocab_size.
"""

from __future__ import annotations

from typing import Any

import torch

from engine.training.loss import Head
from engine.training.products import times

Tensor = Any

CHUNK = 256  # rows: logits of teacher and student are 100 MB at V = 49,152


def divergence(student: Tensor, teacher: Tensor, head: Head) -> tuple[Tensor, Tensor]:
    """student, teacher (n, E) float32, normed -> sum of KL(teacher || student), scalar, and how
    often both think the same word likeliest. The head is frozen; the teacher has no gradient."""
    total, agreed = _Divergence.apply(student, teacher, head)
    return total, agreed


class _Divergence(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, head: Head) -> tuple[Tensor, Tensor]:
        needs = ctx.needs_input_grad[0]
        gradient = torch.empty_like(student) if needs else None
        total = torch.zeros((), dtype=torch.float64)
        agreed = torch.zeros((), dtype=torch.int64)
        weight = head.weight.detach()
        for start in range(0, len(student), CHUNK):
            rows = slice(start, start + CHUNK)
            log_t, log_s = head.logits(teacher[rows]), head.logits(student[rows])
            agreed += (log_t.argmax(1) == log_s.argmax(1)).sum()
            steepness = head.steepness(log_s)
            log_t -= log_t.logsumexp(1, keepdim=True)
            log_s -= log_s.logsumexp(1, keepdim=True)
            p_t = log_t.exp()
            total += (p_t * log_t.sub_(log_s)).sum(1).double().sum()
            if gradient is None:
                continue
            difference = log_s.exp_().sub_(p_t)
            if steepness is not None:
                difference *= steepness
            gradient[rows] = times(difference, weight, head.rounded)
        if gradient is not None and head.scale != 1:
            gradient *= head.scale
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(agreed)
        return total.float(), agreed

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Any, ...]:
        (gradient,) = ctx.saved_tensors
        return None if gradient is None else gradient * grad, None, None
