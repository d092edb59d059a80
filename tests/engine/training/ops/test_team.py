"""Kernels on several threads: every item is done once, whoever does it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from engine.training.kernels import swiglu
from engine.training.ops import team


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield int(request.param)
    torch.set_num_threads(before)


def activated(n_rows: int, rows: int) -> Any:
    both = torch.arange(n_rows * 32, dtype=torch.float32).view(n_rows, 32) / 100
    h = torch.full((n_rows, 16), -1.0)
    team.run(swiglu.forward_4, -(-n_rows // rows), both, h, n_rows, 16, rows)
    gate, up = both.chunk(2, 1)
    return h, torch.nn.functional.silu(gate) * up


@pytest.mark.parametrize(("n_rows", "rows"), [(0, 4), (1, 4), (7, 2), (200, 3)])
def test_every_item_is_done(threads: int, n_rows: int, rows: int) -> None:
    ours, theirs = activated(n_rows, rows)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_threads_of_python_serve_where_openmp_is_not_found(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(team, "_start", lambda: team._start_on_python_threads)
    ours, theirs = activated(100, 3)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_a_run_of_rows_is_at_least_one() -> None:
    assert team.rows_per_item(1) == 1
    assert team.rows_per_item(100_000) == 32
