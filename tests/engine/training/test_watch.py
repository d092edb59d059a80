"""Steps that must not change the weights."""

from __future__ import annotations

import math

import pytest

from engine.training.watch import REMEMBERED, remember, stop_line, why_skip

USUAL = [1.4, 1.5, 1.6] * 4


@pytest.mark.parametrize(
    ("loss", "norm", "said"),
    [
        (math.nan, 1.0, "the loss is nan"),
        (math.inf, 1.0, "the loss is inf"),
        (1.5, math.nan, "the gradient's norm is nan"),
        (3.6, 1.0, "the loss of 3.600 is a spike: 1.500 is usual"),
        (3.4, 1e9, ""),
    ],
)
def test_what_is_skipped(loss: float, norm: float, said: str) -> None:
    assert why_skip(loss, norm, USUAL, 2.0) == said


def test_no_spike_is_known_at_the_start_or_with_the_rule_off() -> None:
    assert why_skip(100.0, 1.0, [1.0] * 7, 2.0) == ""
    assert why_skip(100.0, 1.0, [1.0] * 8, 0.0) == ""
    assert why_skip(100.0, 1.0, [1.0] * 8, 2.0) != ""


def test_only_the_last_losses_that_are_numbers_are_remembered() -> None:
    recent: list[float] = []
    for i in range(100):
        remember(recent, float(i))
        remember(recent, math.nan)
    assert recent == [float(i) for i in range(100 - REMEMBERED, 100)]


def test_the_last_line_says_what_to_do() -> None:
    said = stop_line(17, 3, "the loss is nan", 2e-4)
    assert said.startswith("stopped at step 17: 3 steps in a row were skipped, the last because")
    assert "lower learning_rate (it was 2.0e-04)" in said
