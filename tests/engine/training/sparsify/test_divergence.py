"""KL in chunks: the plain formula, and its gradient."""

from __future__ import annotations

import pytest
import torch
from numpy.testing import assert_allclose

from engine.training.loss import Head
from engine.training.sparsify import divergence as module
from engine.training.sparsify.divergence import divergence


@pytest.mark.parametrize("scale", [1.0, 0.5])
@pytest.mark.parametrize("chunk", [4, 100])
def test_it_is_the_plain_divergence(
    chunk: int, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK", chunk)
    generator = torch.Generator().manual_seed(0)
    student, teacher, weight = (torch.randn(n, 6, generator=generator) for n in (11, 11, 40))
    head = Head(weight, None, scale)
    plain_input, ours_input = (student.clone().requires_grad_() for _ in range(2))
    log_s = torch.log_softmax(scale * plain_input @ weight.t(), 1)
    log_t = torch.log_softmax(scale * teacher @ weight.t(), 1)
    plain = torch.nn.functional.kl_div(log_s, log_t, log_target=True, reduction="sum")
    plain.backward()
    ours, agreed = divergence(ours_input, teacher, head)
    (2 * ours).backward()
    assert_allclose(float(ours.detach()), float(plain.detach()), rtol=1e-5)
    assert_allclose(ours_input.grad.numpy(), 2 * plain_input.grad.numpy(), rtol=1e-4, atol=1e-6)
    assert int(agreed) == int((log_s.argmax(1) == log_t.argmax(1)).sum())


def test_without_a_gradient_nothing_is_kept() -> None:
    h, weight = torch.ones(3, 4), torch.eye(4)
    total, agreed = divergence(h, h, Head(weight))
    assert float(total) == 0
    assert int(agreed) == 3
    assert not total.requires_grad
