"""Thresholds: quantiles of what is seen, the ramp, and what stays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from engine.training.sparsify.gates import Gates, rows_of
from engine.training.sparsify.settings import SparsifySettings, settings_from
from tests.engine.decoders import small_config


def seen_by(gates: Gates, share: float | None, n: int = 64, size: float = 1.0) -> torch.Tensor:
    """What a layer gives for random gates and ups, all tokens sparse."""
    width = gates.config.intermediate_size
    both = size * torch.randn(n, 2 * width, generator=torch.Generator().manual_seed(1))
    gates.sparse, gates.follows = torch.ones(n, dtype=torch.bool), share
    out = gates.layer(0)(both)
    gates.follow()
    return out


def test_a_threshold_leaves_the_share_out_that_it_follows() -> None:
    gates = Gates(small_config(), 0.7, 0.7)
    seen_by(gates, 0.4)
    assert 0 < gates.now[0, 0] < gates.goal[0, 0]
    assert (gates.now[:, 1] == -1).all() and (gates.goal[:, 1] == -1).all()
    out = seen_by(gates, None)
    assert_allclose(float((out == 0).float().mean()), 0.4, atol=0.01)
    gates.at_goal = True
    out = seen_by(gates, None)
    assert_allclose(float((out == 0).float().mean()), 0.7, atol=0.01)


def test_what_a_neuron_counts_for_follows_its_ups() -> None:
    gates = Gates(small_config(), 0.5, 0.5)
    width = gates.config.intermediate_size
    larger = torch.ones(2 * width)
    larger[width : width + 8] = 10  # the first eight ups
    both = torch.randn(64, 2 * width, generator=torch.Generator().manual_seed(1)) * larger
    gates.sparse, gates.follows = torch.ones(64, dtype=torch.bool), 0.5
    gates.layer(0)(both)
    gates.follow()
    others = gates.importance[0, 8:].mean()
    assert_allclose(gates.importance[0, :8].mean() / others, 10, rtol=0.2)
    assert_allclose(gates.importance[0].mean(), 1, rtol=1e-5)
    assert (gates.importance[1:] == 1).all()  # no token came there
    gates.follows = None
    kept = (gates.layer(0)(both) != 0).float().mean(0)
    assert kept[:8].mean() > 0.9 > 0.6 > kept[8:].mean()


def test_thresholds_move_slowly_and_stay_when_nothing_is_followed() -> None:
    gates = Gates(small_config(), 0, 0.5)
    seen_by(gates, 0.5)
    assert gates.goal[0, 0] == -1
    first = gates.goal[0, 1]
    seen_by(gates, 0.5, size=2.0)
    assert first < gates.goal[0, 1] < 1.5 * first  # its own quantile is four times that
    moved = gates.goal.copy()
    seen_by(gates, None, size=4.0)
    assert np.array_equal(gates.goal, moved)
    assert np.array_equal(gates.now[0], gates.goal[0])  # at the goal both are one


def test_gates_leave_out_some_and_products_the_rest() -> None:
    gates = Gates(small_config(), 0.4, 0.7)
    seen_by(gates, 0.35)
    out = seen_by(gates, None)
    assert_allclose(float((out == 0).float().mean()), 0.35, atol=0.01)
    gates.at_goal = True
    seen = gates.count()
    out = seen_by(gates, None)
    assert_allclose(float((out == 0).float().mean()), 0.7, atol=0.01)
    active, rows = seen.shares()
    assert_allclose((active[0], rows[0]), (0.3, 0.6), atol=0.01)
    left = out[out != 0].abs()
    assert left.min() > gates.goal[0, 1] > 0


def test_without_tokens_that_skip_everything_is_computed() -> None:
    gates = Gates(small_config(), 0.5, 0.5)
    seen_by(gates, 0.5)
    gates.follows, gates.sparse = None, torch.zeros(3, dtype=torch.bool)
    out = gates.layer(0)(torch.randn(3, 2 * gates.config.intermediate_size))
    assert (out != 0).all()


def test_active_neurons_are_counted_among_the_tokens_that_skip() -> None:
    gates = Gates(small_config(), 0.5, 0.5)
    seen_by(gates, 0.5)
    seen = gates.count()
    seen_by(gates, None)
    for shares in seen.shares():
        assert_allclose(shares[0], 0.5, atol=0.01)
        assert shares[1] == 1  # no token went through it


def test_the_share_rises_to_the_goal_and_stays() -> None:
    settings = SparsifySettings(goal=0.8, ramp=0.4, start=0.2)
    shares = [settings.share_at(done) for done in (0, 0.1, 0.2, 0.4, 0.9)]
    assert_allclose(shares, [0.2, 0.35, 0.5, 0.8, 0.8])
    assert SparsifySettings(goal=0.1, start=0.3).share_at(0) == 0.1
    assert SparsifySettings(goal=0.8, ramp=0).share_at(0) == 0.8


def test_models_without_a_gate_have_thresholds_of_the_product() -> None:
    plain = small_config(gated=False, activation="relu")
    assert rows_of(plain, SparsifySettings()) == 0
    assert rows_of(plain, SparsifySettings(rows=0)) == 0
    with pytest.raises(ValueError, match=r"has no gate; rows must be 0, got 0\.5"):
        rows_of(plain, SparsifySettings(rows=0.5))
    assert rows_of(small_config(), SparsifySettings(goal=0.7)) == 0.5
    assert rows_of(small_config(), SparsifySettings(goal=0.1)) == 0
    assert rows_of(small_config(), SparsifySettings(goal=0.7, rows=0.7)) == 0.7


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"gole": 0.5}, "sparsify: unknown setting 'gole'; did you mean 'goal'"),
        ({"goal": 0.99}, r"goal must be in \[0.05, 0.95\], got 0.99"),
        ({"goal": "much"}, "sparsify: goal must be float, got 'much'"),
        ({"match": True}, "match must be int, got True"),
        ({"rows": 0.8}, "rows must be at most the goal, 0.7, got 0.8"),
        ({"rows": "all"}, r"rows must be float \| None, got 'all'"),
        ({"ramp": 0.9}, "fixed 0.7 lies before ramp 0.9"),
    ],
)
def test_settings_are_strict(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings_from(values)


def test_settings_survive_their_file() -> None:
    settings = SparsifySettings(goal=0.6, questions=3)
    assert settings_from(settings.as_dict()) == settings
