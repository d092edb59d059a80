"""Products with parts of a matrix: dequantize(weight) is the specification, as in test_formats."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from engine.formats import Weight, format_for, weight_format
from engine.kernels import activations, partial
from engine.kernels.layout import padded
from engine.sparse_formats import SPARSE_FORMATS, int8, sparse_format
from tests.engine.test_formats import int8_blocks

Floats = NDArray[np.float32]
NAMES = sorted(SPARSE_FORMATS - {"int8"})
SHAPES = [(1, 32), (37, 200), (64, 576), (72, 136)]


def weight_of(rng: np.random.Generator, name: str, shape: tuple[int, int]) -> Weight:
    values = padded(rng.standard_normal(shape, np.float32))
    return Weight(name, weight_format(name).quantize(values), *shape)


def values_of(weight: Weight) -> Floats:
    values: Floats = weight_format(weight.format).dequantize(weight.data)
    return values[: weight.n_out, : weight.n_in]


def spread_out(blocks: NDArray[np.uint8]) -> NDArray[np.uint8]:
    n = blocks.size // activations.BLOCK_BYTES
    out = np.zeros(-(-n // 4) * partial.RUN_BYTES, np.uint8)
    partial.spread(blocks.ctypes.data, n, out.ctypes.data)
    return out


def rows_of(weight: Weight, rows: NDArray[np.int32], x: Floats) -> Floats:
    """The kernel: these rows times x (n_in,)."""
    module = sparse_format(weight.format)
    copy = np.ascontiguousarray(module.pack_rows(weight))
    row = padded(x[None])[:1]
    inputs = spread_out(int8_blocks(row)[0]) if module.SPREAD else row
    out = np.full(len(rows) + 1, np.nan, np.float32)
    module.rows.ctypes(
        copy.ctypes.data, copy.shape[1], row.shape[1] // 32, rows.ctypes.data, len(rows),
        inputs.ctypes.data, out.ctypes.data,
    )  # fmt: skip
    assert np.isnan(out[-1])
    return out[:-1]


def active_of(x: Floats) -> NDArray[np.uint8]:
    """The twin of the lists that the layer loop makes: the non-zero values of x by blocks."""
    n_blocks = -(-len(x) // 32)
    counts, sums = np.zeros(n_blocks, np.int64), np.zeros(n_blocks, np.float32)
    inputs, values = np.zeros((n_blocks, 32), np.int32), np.zeros((n_blocks, 32), np.float32)
    for b in range(n_blocks):
        part = x[32 * b : 32 * b + 32]
        (found,) = np.nonzero(part)
        counts[b], sums[b] = len(found), part.sum()
        inputs[b, : len(found)], values[b, : len(found)] = found, part[found]
    parts = [each.ravel().view(np.uint8) for each in (counts, inputs, values, sums)]
    return np.concatenate(parts)


def inputs_of(weight: Weight, x: Floats, shares: int = 1, name: str | None = None) -> Floats:
    """The kernel: the matrix times x (n_in,), whose zeros are not read; outputs in some shares.

    name: of the copy's format, where it is not the weight's.
    """
    module, tiles = sparse_format(name or weight.format), -(-weight.n_out // 32)
    copy = np.ascontiguousarray(module.pack_inputs(weight))
    if name == "int8":
        scales = np.ascontiguousarray(copy[:, -128:]).view(np.float32).ravel()
        x = x * scales[: len(x)]
    active, out = active_of(x), np.full(32 * tiles, np.nan, np.float32)
    edges = [tiles * i // shares for i in range(shares + 1)]
    for first, last in pairwise(edges):
        module.inputs.ctypes(
            copy.ctypes.data, module.stride(tiles), tiles, len(copy), active.ctypes.data,
            first, last, out.ctypes.data,
        )  # fmt: skip
    assert not out[weight.n_out :].any()
    return out[: weight.n_out]


def sparse_row(rng: np.random.Generator, n: int, active: float) -> Floats:
    x = rng.standard_normal(n, np.float32)
    x[rng.random(n) >= active] = 0
    return x


def test_every_format_that_a_checkpoint_is_packed_in_can_be_read_in_part() -> None:
    kinds = ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q8_0", "Q6_K")
    assert {format_for(kind) for kind in kinds} == SPARSE_FORMATS - {"int8"}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", SHAPES)
def test_rows_match_those_of_dequantize(
    rng: np.random.Generator, name: str, shape: tuple[int, int]
) -> None:
    weight = weight_of(rng, name, shape)
    x = rng.standard_normal(shape[1], np.float32)
    expected = values_of(weight) @ x
    # the int8 blocks carry 15 bits of an activation
    tolerance = 3e-4 if sparse_format(name).SPREAD else 1e-5
    for n in (0, 1, shape[0] // 3, shape[0]):
        rows = np.sort(rng.choice(shape[0], n, replace=False)).astype(np.int32)
        ours = rows_of(weight, rows, x)
        assert_allclose(ours, expected[rows], atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("active", [0.0, 0.1, 1.0])
def test_inputs_match_dequantize(
    rng: np.random.Generator, name: str, shape: tuple[int, int], active: float
) -> None:
    weight = weight_of(rng, name, shape)
    x = sparse_row(rng, shape[1], active)
    values = values_of(weight)
    tolerance = 1e-5 * np.abs(values).max() * max(np.abs(x).sum(), 1)
    assert_allclose(inputs_of(weight, x), values @ x, atol=tolerance)


@pytest.mark.parametrize("name", NAMES)
def test_the_sharing_of_outputs_does_not_change_a_bit(rng: np.random.Generator, name: str) -> None:
    weight = weight_of(rng, name, (200, 320))
    x = sparse_row(rng, 320, 0.3)
    whole = inputs_of(weight, x)
    for shares in (2, 3, 5):
        assert_array_equal(inputs_of(weight, x, shares), whole)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", SHAPES)
def test_inputs_in_8_bits_match_their_dequantize(
    rng: np.random.Generator, name: str, shape: tuple[int, int]
) -> None:
    weight = weight_of(rng, name, shape)
    values, exact = int8.dequantize(weight), values_of(weight)
    largest = np.abs(exact).max(axis=0)
    assert (np.abs(values - exact) <= 0.51 * largest / 127).all()
    for active in (0.0, 0.1, 1.0):
        x = sparse_row(rng, shape[1], active)
        tolerance = 1e-5 * np.abs(values).max() * max(np.abs(x).sum(), 1)
        ours = inputs_of(weight, x, name="int8")
        assert_allclose(ours, values @ x, atol=tolerance)
        assert_array_equal(inputs_of(weight, x, 2, "int8"), ours)
