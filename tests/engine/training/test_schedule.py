"""Learning rates rise in a line and fall as they are told."""

from __future__ import annotations

import pytest

from engine.training.schedule import rate_factor


def factors(kind: str, warmup: float, n_steps: int) -> list[float]:
    return [rate_factor(kind, warmup, i / n_steps, (i + 1) / n_steps) for i in range(n_steps)]


def test_warm_up_is_a_line_to_the_peak() -> None:
    assert factors("constant", 0.4, 10) == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1, 1])


def test_linear_falls_to_nothing_behind_the_last_step() -> None:
    assert factors("linear", 0.0, 4) == pytest.approx([1, 0.75, 0.5, 0.25])
    assert factors("linear", 0.2, 5) == pytest.approx([1, 1, 0.75, 0.5, 0.25])


def test_cosine_is_half_in_the_middle() -> None:
    found = factors("cosine", 0.0, 100)
    assert found[0] == 1 and found[50] == pytest.approx(0.5)
    assert found == sorted(found, reverse=True)
    assert 0 < found[-1] < 0.001


@pytest.mark.parametrize("kind", ["cosine", "linear", "constant"])
@pytest.mark.parametrize("warmup", [0.0, 0.03, 0.5, 1.0])
def test_no_step_is_made_at_nothing(kind: str, warmup: float) -> None:
    for n_steps in (1, 2, 7, 100):
        assert all(0 < factor <= 1 for factor in factors(kind, warmup, n_steps))
