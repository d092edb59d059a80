"""Cross-entropy in chunks, against torch's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from engine.training import loss
from engine.training.loss import Head, cross_entropy, heaviest

# not a multiple of a vector
V, E = 403, 24


def random(*shape: int, seed: int = 0) -> Any:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


@pytest.fixture(params=[1, 7, 1000], ids="chunks of {}".format)
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Rows a chunk."""
    monkeypatch.setattr(loss, "_CHUNK_BYTES", 4 * V * request.param)
    return int(request.param)


def inputs(n: int = 20) -> tuple[Any, Any, Any, Any]:
    targets = torch.from_numpy(np.random.default_rng(5).integers(0, V, n))
    h, weight, bias = random(n, E), random(V, E, seed=1), random(V, seed=2)
    return h.requires_grad_(), weight.requires_grad_(), bias.requires_grad_(), targets


@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_loss_and_gradients_equal_torch(chunk: int, scale: float) -> None:
    h, weight, bias, targets = inputs()
    ours = cross_entropy(h, Head(weight, bias, scale), targets)
    (3 * ours.total).backward()
    found = [x.grad.numpy().copy() for x in (h, weight, bias)]
    for x in (h, weight, bias):
        x.grad = None
    logits = (h @ weight.t() + bias) * scale
    theirs = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
    (3 * theirs).backward()
    assert ours.n == 20
    assert ours.total.item() == pytest.approx(theirs.item(), rel=1e-5)
    for ours_gradient, x in zip(found, (h, weight, bias), strict=True):
        assert_allclose(ours_gradient, x.grad, rtol=1e-4, atol=1e-5)


def test_correct_counts_labels_that_are_likeliest() -> None:
    h, weight, bias, targets = inputs(200)
    logits = h @ weight.t() + bias
    best = logits.argmax(1)
    targets = torch.where(torch.arange(200) % 4 == 0, best, targets)
    expected = int((best == targets).sum())
    assert cross_entropy(h, Head(weight, bias), targets).correct == expected


def test_only_what_is_trained_gets_a_gradient() -> None:
    h, weight, _, targets = inputs()
    cross_entropy(h.detach(), Head(weight), targets).total.backward()
    assert h.grad is None
    assert weight.grad is not None


def test_without_gradients_there_is_a_loss() -> None:
    h, weight, _, targets = inputs()
    with torch.no_grad():
        assert cross_entropy(h, Head(weight), targets).total.item() > 0


def test_a_label_far_below_the_likeliest_keeps_its_loss_finite() -> None:
    weight = torch.zeros(V, E)
    weight[3] = 40.0
    found = cross_entropy(torch.ones(1, E), Head(weight), torch.tensor([5]))
    assert found.total.item() == pytest.approx(40.0 * E, rel=1e-4)


@pytest.mark.parametrize(
    ("share", "kept"), [(1.0, None), (0.95, [1, 2, 4]), (0.9, [1, 2, 4]), (0.7, [1, 4]), (0.5, [4])]
)
def test_heaviest_keeps_the_fewest_columns_with_the_share(share: float, kept: Any) -> None:
    found = heaviest(torch.tensor([0.01, 0.3, 0.15, 0.04, 0.5]), share)
    assert kept == (None if found is None else found.tolist())


@pytest.mark.parametrize("mass", [0.99, 0.999])
def test_the_gradient_through_the_heaviest_columns_points_the_same_way(mass: float) -> None:
    h, weight, _, targets = inputs(60)
    found = []
    for share in (1.0, mass):
        h.grad = weight.grad = None
        cross_entropy(3 * h, Head(weight, mass=share), targets).total.backward()
        found.append((h.grad.clone(), weight.grad.clone()))
    for exact, sparse in zip(*found, strict=True):
        cosine = torch.nn.functional.cosine_similarity(exact.flatten(), sparse.flatten(), 0)
        assert cosine > 0.99
    assert (found[1][1] == 0).all(1).any()  # columns were left out
