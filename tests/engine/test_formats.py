"""Weight formats against their NumPy twins: dequantize(weight) @ x is the specification."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from gguf.quants import dequantize as gguf_dequantize
from gguf.quants import quantize as gguf_quantize
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from engine.formats import FORMATS, SCREEN_FORMATS, format_for, weight_format
from engine.kernels import activations
from engine.kernels.layout import blocks, groups, padded

SHAPES = [(1, 32), (16, 32), (37, 200), (64, 576)]
NAMES = sorted(FORMATS | SCREEN_FORMATS)


@dataclass
class Stored:
    """A tensor as a checkpoint holds it."""

    name: str
    shape: tuple[int, int]
    kind: str
    data: NDArray[np.uint8]
    values: NDArray[np.float32]

    def float32(self, start: int = 0, stop: int | None = None) -> NDArray[np.float32]:
        return self.values[start:stop]


def int8_blocks(x: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Rows of float32 (T, 32 b) as int8 activation blocks."""
    n_blocks = x.shape[1] // 32
    out = np.zeros((len(x), n_blocks * activations.BLOCK_BYTES), np.uint8)
    for row, blocks_ in zip(x, out, strict=True):
        activations.quantize(row.ctypes.data, n_blocks, blocks_.ctypes.data)
    return out


def product(name: str, packed: NDArray[np.uint8], x: NDArray[np.float32]) -> NDArray[np.float32]:
    """The format's kernel: x (T, 32 b) -> (T, 16 a)."""
    module = weight_format(name)
    inputs = int8_blocks(x) if module.INT8 else np.ascontiguousarray(x)
    n_groups, n_blocks, _ = packed.shape
    out = np.full((len(x), 16 * n_groups), np.nan, np.float32)
    module.matmul.ctypes(
        packed.ctypes.data, 0, n_groups, n_blocks, inputs.ctypes.data, inputs.strides[0],
        len(x), out.ctypes.data, out.strides[0],
    )  # fmt: skip
    return out


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n_tokens", [1, 3, 11])
def test_matmul_matches_dequantize(
    rng: np.random.Generator, name: str, shape: tuple[int, int], n_tokens: int
) -> None:
    module = weight_format(name)
    packed = module.quantize(padded(rng.standard_normal(shape, np.float32)))
    x = padded(rng.standard_normal((n_tokens, shape[1]), np.float32))[:n_tokens]
    expected = x @ module.dequantize(packed).T
    # the int8 blocks carry 15 bits of an activation
    tolerance = 3e-4 if module.INT8 else 1e-5
    assert_allclose(product(name, packed, x), expected, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("name", NAMES)
def test_a_token_gives_the_same_bits_alone_and_in_a_batch(
    rng: np.random.Generator, name: str
) -> None:
    packed = weight_format(name).quantize(rng.standard_normal((48, 96), np.float32))
    x = rng.standard_normal((13, 96), np.float32)
    alone = np.concatenate([product(name, packed, row[None]) for row in x])
    assert_array_equal(product(name, packed, x), alone)


@pytest.mark.parametrize("name", NAMES)
def test_a_product_of_some_groups_leaves_the_others_alone(
    rng: np.random.Generator, name: str
) -> None:
    module = weight_format(name)
    packed = module.quantize(rng.standard_normal((64, 32), np.float32))
    x = rng.standard_normal((1, 32), np.float32)
    whole = product(name, packed, x)
    inputs = int8_blocks(x) if module.INT8 else x
    out = np.full((1, 64), np.nan, np.float32)
    module.matmul.ctypes(
        packed.ctypes.data, 1, 3, 1, inputs.ctypes.data, inputs.strides[0], 1, out.ctypes.data, 256
    )
    assert_array_equal(out[0, 16:48], whole[0, 16:48])
    assert np.isnan(out[0, :16]).all() and np.isnan(out[0, 48:]).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", SHAPES)
def test_row_matches_dequantize(
    rng: np.random.Generator, name: str, shape: tuple[int, int]
) -> None:
    module = weight_format(name)
    packed = module.quantize(padded(rng.standard_normal(shape, np.float32)))
    values = module.dequantize(packed)
    out = np.empty(values.shape[1], np.float32)
    for index in range(shape[0]):
        module.row.ctypes(packed.ctypes.data, packed.shape[1], index, out.ctypes.data)
        assert_allclose(out, values[index], rtol=1e-6, atol=1e-7)


# q4_0 has no positive eighth step, so that its largest error is a whole one
@pytest.mark.parametrize(("name", "steps"), [("q8", 127), ("q4", 15 / 2), ("q4_0", 8 / 2)])
def test_quantize_error_is_at_most_about_half_a_step(
    rng: np.random.Generator, name: str, steps: float
) -> None:
    module = weight_format(name)
    values = rng.standard_normal((32, 320), np.float32)
    errors = np.abs(module.dequantize(module.quantize(values)) - values).reshape(32, 10, 32)
    largest = np.abs(values).reshape(32, 10, 32).max(axis=2, keepdims=True)
    assert (errors <= 0.52 * largest / steps + 1e-3 * largest).all()


@pytest.mark.parametrize("name", ["f32", "f16", "bf16"])
def test_float_formats_keep_values_to_their_own_precision(
    rng: np.random.Generator, name: str
) -> None:
    module = weight_format(name)
    values = rng.standard_normal((16, 64), np.float32)
    bits = {"f32": 24, "f16": 11, "bf16": 8}[name]
    assert_allclose(module.dequantize(module.quantize(values)), values, rtol=2.0**-bits)


@pytest.mark.parametrize("name", NAMES)
def test_zero_rows_stay_zero(name: str) -> None:
    module = weight_format(name)
    packed = module.quantize(np.zeros((16, 32), np.float32))
    assert not module.dequantize(packed).any()
    assert not product(name, packed, np.ones((1, 32), np.float32)).any()


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q8_0"])
@pytest.mark.parametrize("n_rows", [16, 21])
def test_stored_blocks_are_taken_over_as_they_are(
    rng: np.random.Generator, kind: str, n_rows: int
) -> None:
    values = rng.standard_normal((n_rows, 96), np.float32)
    stored = gguf_quantize(values, GGMLQuantizationType[kind])
    expected = gguf_dequantize(stored, GGMLQuantizationType[kind])
    tensor = Stored("w", values.shape, kind, stored.ravel(), expected)
    module = weight_format(format_for(kind))
    packed = module.pack(tensor, 0, n_rows)
    assert packed.shape == (groups(n_rows), blocks(96), module.BLOCK_BYTES)
    assert_allclose(module.dequantize(packed)[:n_rows], expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *(("F32", "f32"), ("F16", "f16"), ("BF16", "bf16"), ("Q8_0", "q8")),
        *(("Q4_1", "q4"), ("Q4_0", "q4_0"), ("Q6_K", "q8")),
    ],
)
def test_every_kind_has_a_format(kind: str, name: str) -> None:
    assert format_for(kind) == name


def test_an_unknown_format_is_named_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown weight format 'q3'; .* q4, q4_0, q8"):
        weight_format("q3")
