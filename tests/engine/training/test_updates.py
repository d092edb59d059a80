"""One optimizer step: sums over batches are means over trained tokens."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from engine.training.examples import Example
from engine.training.optimizers import optimizer
from engine.training.packing import batch_of
from engine.training.updates import apply, gradients, is_enough
from tests.engine.training.fakes import Bigram


def examples(rng: np.random.Generator, n: int) -> list[Example]:
    """Of different lengths, with different shares of labels."""
    made = []
    for i in range(n):
        length = int(rng.integers(3, 12))
        trained = (rng.random(length) < (i + 1) / n).tolist()
        trained[-1] = True
        made.append(Example(rng.integers(0, 50, length).tolist(), trained, "", 0))
    return made


def test_accumulated_batches_equal_one_large_batch(rng: np.random.Generator) -> None:
    made = examples(rng, 9)
    one, several = Bigram(), Bigram()
    whole = gradients(one, [batch_of(made)])
    parts = gradients(several, [batch_of(made[:2]), batch_of(made[2:8]), batch_of(made[8:])])
    assert parts.loss == pytest.approx(whole.loss, rel=1e-6)
    assert parts.grad_norm == pytest.approx(whole.grad_norm, rel=1e-6)
    assert parts[1:4] == whole[1:4]
    for model, sums in ((one, whole), (several, parts)):
        apply(model, optimizer("adamw", model.trainable), sums, 0.1, 1.0)
    torch.testing.assert_close(one.trainable["table"], several.trainable["table"])


def test_the_norm_is_that_of_the_mean_gradient(rng: np.random.Generator) -> None:
    model = Bigram()
    batch = batch_of(examples(rng, 3))
    sums = gradients(model, [batch])
    loss = model(batch)
    (gradient,) = torch.autograd.grad(loss.total / loss.n, [model.trainable["table"]])
    assert sums.grad_norm == pytest.approx(float(gradient.norm()), rel=1e-5)
    assert sums.loss == pytest.approx(float(loss.total.detach()) / loss.n)


class _Recorder:
    """An optimizer that notes what it is asked for."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, float]] = []

    def step(self, learning_rate: float, scale: float) -> None:
        self.calls.append((learning_rate, scale))


@pytest.mark.parametrize("clip", [0.0, 0.01, 1e9])
def test_gradients_are_clipped_to_their_longest(rng: np.random.Generator, clip: float) -> None:
    model, recorder = Bigram(), _Recorder()
    sums = gradients(model, [batch_of(examples(rng, 3))])
    apply(model, recorder, sums, 0.1, clip)  # type: ignore[arg-type]
    ((rate, scale),) = recorder.calls
    length = sums.grad_norm * scale * sums.n_targets
    assert rate == 0.1
    assert length == pytest.approx(0.01 if clip == 0.01 else sums.grad_norm, rel=1e-6)
    assert model.trainable["table"].grad is None


def test_a_loss_that_is_no_number_ends_the_sum(rng: np.random.Generator) -> None:
    model = Bigram()
    with torch.no_grad():
        model.trainable["table"].fill_(math.nan)
    sums = gradients(model, [batch_of(examples(rng, 2))])
    assert math.isnan(sums.loss) and math.isnan(sums.grad_norm)


def test_a_step_has_batches_or_labels_enough(rng: np.random.Generator) -> None:
    batches = [batch_of([Example([1, 2, 3], [False, True, True], "", 0)])] * 3
    assert [is_enough(batches[:n], 2, None) for n in (1, 2, 3)] == [False, True, True]
    assert [is_enough(batches[:n], 1, 5) for n in (1, 2, 3)] == [False, False, True]
