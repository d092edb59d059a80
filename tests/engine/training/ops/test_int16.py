"""Products of int16 against float64, and how they are rounded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from engine.training.kernels.int16 import BLOCK, MOST, MOST_OF_WEIGHTS
from engine.training.ops.int16 import (
    fits,
    multiply,
    panels_of_columns,
    panels_of_rows,
    quantize,
)


def random(*shape: int, seed: int = 0) -> Any:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def words(*shape: int) -> Any:
    """Random weights of 12 bits."""
    values = np.random.default_rng(7).integers(-MOST_OF_WEIGHTS, MOST_OF_WEIGHTS + 1, shape)
    return torch.from_numpy(values.astype(np.int16))


@pytest.mark.parametrize("most", [MOST, MOST_OF_WEIGHTS])
def test_quantize_is_off_by_half_a_step_at_most(most: int) -> None:
    x, factors = random(37, 48), random(48, seed=1)
    q, scales = quantize(x, factors, most)
    assert q.dtype == torch.int16
    error = (q * scales[:, None] - x * factors).abs().numpy()
    assert (error <= 0.501 * scales[:, None].numpy()).all()
    assert (q.abs().amax(1) == most).all()


def test_a_row_of_zeros_is_zero() -> None:
    q, scales = quantize(torch.zeros(3, 32))
    assert not q.any()
    assert not scales.any()


def test_panels_hold_pairs_of_inputs_for_sixteen_outputs() -> None:
    q = words(32, 48)
    rows = panels_of_rows(q).numpy().reshape(2, 24, 16, 2)
    columns = panels_of_columns(q).numpy().reshape(3, 16, 16, 2)
    expected = q.numpy()
    assert_array_equal(rows.transpose(0, 2, 1, 3).reshape(32, 48), expected)
    assert_array_equal(columns.transpose(0, 2, 1, 3).reshape(48, 32), expected.T)


@pytest.mark.parametrize("n_tokens", [1, 5, 6, 7, 48, 101])
@pytest.mark.parametrize(("n_in", "n_out"), [(16, 48), (576, 16), (BLOCK, 32)])
@pytest.mark.parametrize("rank", [0, 1, 16, 48])
def test_products_are_those_of_the_rounded_numbers(
    n_tokens: int, n_in: int, n_out: int, rank: int
) -> None:
    x, q = random(n_tokens, n_in), words(n_out, n_in)
    before, after = random(n_in, seed=1), random(n_out, seed=2)
    z, b = random(n_tokens, rank, seed=3), random(rank, n_out, seed=4)
    rounded, scales = quantize(x, before)
    sums = rounded.double() @ q.double().t() * scales.double()[:, None] * after
    low = (z, b) if rank else None
    found = multiply(x, before, panels_of_rows(q), after, low)
    expected = sums + z.double() @ b.double()
    size = float(expected.abs().max())
    assert_allclose(found.numpy(), expected.numpy(), rtol=1e-5, atol=1e-6 * size)


def test_the_largest_numbers_leave_no_sum(rng: np.random.Generator) -> None:
    n_in = 3 * BLOCK
    signs = torch.from_numpy(rng.choice([-1, 1], n_in))
    q = (MOST_OF_WEIGHTS * signs).to(torch.int16).repeat(16, 1)
    found = multiply(signs.float()[None], None, panels_of_rows(q), None, None)
    assert_allclose(found.numpy(), np.full((1, 16), MOST_OF_WEIGHTS * n_in), rtol=1e-6)


def test_rows_that_lie_apart_are_taken_as_they_lie() -> None:
    q, wide = words(32, 48), random(20, 96)
    x, z = wide[:, :48], wide[:, 48:64]
    b = random(16, 32, seed=1)
    found = multiply(x, None, panels_of_rows(q), None, (z, b))
    expected = multiply(x.contiguous(), None, panels_of_rows(q), None, (z.contiguous(), b))
    assert_array_equal(found.numpy(), expected.numpy())


def test_sizes_that_fit_are_whole_vectors() -> None:
    assert fits(16, 48)
    assert not fits(16, 40)
