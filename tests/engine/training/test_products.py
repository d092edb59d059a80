"""Products of matrices against torch's own, whatever their strides and sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from engine.training import products
from engine.training.products import times, times_transposed, transposed_times


@pytest.fixture(params=["onednn", "avx2", "plain"], autouse=True)
def _library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "_HAS_AVX512", request.param == "onednn")
    operator = None if request.param == "plain" else products._onednn()
    monkeypatch.setattr(products, "_LINEAR", operator)


def random(*shape: int, seed: int = 0) -> Any:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("t", "k", "n"), [(1, 40, 9), (30, 3, 50), (70, 80, 90), (0, 8, 8), (70, 30, 90), (70, 90, 80)]
)
def test_three_products_equal_torch(t: int, k: int, n: int, dtype: Any) -> None:
    x, w, y = random(t, k).to(dtype), random(n, k, seed=1).to(dtype), random(t, n, seed=2).to(dtype)
    tolerance = (
        {"rtol": 2e-2, "atol": 0.2} if dtype == torch.bfloat16 else {"rtol": 1e-4, "atol": 1e-4}
    )
    exact = [v.double() for v in (x, w, y)]
    for found, expected in (
        (times_transposed(x, w), exact[0] @ exact[1].t()),
        (times(y, w), exact[2] @ exact[1]),
        (transposed_times(y, x), exact[2].t() @ exact[0]),
    ):
        torch.testing.assert_close(found.double(), expected, **tolerance)


def test_rounded_products_are_those_of_bfloat16_at_most_and_float32_comes_back() -> None:
    x, w, y = random(70, 80), random(90, 80, seed=1), random(70, 90, seed=2)
    exact = [v.double() for v in (x, w, y)]
    for found, expected in (
        (times_transposed(x, w, rounded=True), exact[0] @ exact[1].t()),
        (times(y, w, rounded=True), exact[2] @ exact[1]),
        (transposed_times(y, x, rounded=True), exact[2].t() @ exact[0]),
    ):
        assert found.dtype == torch.float32
        assert float((found.double() - expected).norm() / expected.norm()) < 4e-3
    torch.testing.assert_close(
        times_transposed(x, w).double(), exact[0] @ exact[1].t(), rtol=1e-4, atol=1e-4
    )


def test_columns_of_a_wider_matrix_are_multiplied_as_they_lie() -> None:
    wide, w = random(40, 100), random(30, 50, seed=1)
    expected = wide[:, 20:70].double() @ w.t().double()
    torch.testing.assert_close(
        times_transposed(wide[:, 20:70], w).double(), expected, rtol=1e-4, atol=1e-4
    )
