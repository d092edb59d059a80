"""Our float32 of each stored kind against the gguf package's, bit for bit."""

from __future__ import annotations

import tracemalloc

import gguf
import numpy as np
import pytest
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize, quantize
from numpy.testing import assert_array_equal

from engine.checkpoints import RawTensor, _kinds

NATIVE = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1"]
THROUGH_GGUF = ["Q5_0", "Q5_1", "Q4_K", "Q6_K", "Q2_K", "IQ4_NL", "IQ2_XXS", "TQ1_0", "MXFP4"]


def random_rows(kind: str, n_rows: int, n_in: int) -> tuple[np.ndarray, np.ndarray]:
    """Stored rows, (n_rows, n_bytes) uint8, and what the gguf package reads from them."""
    rng = np.random.default_rng(0)
    type_ = GGMLQuantizationType[kind]
    n_weights, n_bytes = GGML_QUANT_SIZES[type_]
    if kind in NATIVE or kind in ("Q5_0", "Q5_1"):
        rows = quantize(rng.standard_normal((n_rows, n_in), dtype=np.float32), type_)
        rows = rows.view(np.uint8)
    else:  # the package cannot write these; random bytes are as good, but for infinite scales
        rows = rng.integers(0, 56, (n_rows, n_in // n_weights * n_bytes), dtype=np.uint8)
    stored = rows.view(np.float16) if kind == "F16" else rows
    return rows, dequantize(stored, type_).reshape(n_rows, n_in)


def raw(kind: str, rows: np.ndarray, shape: tuple[int, ...]) -> RawTensor:
    return RawTensor("w", shape, kind, rows.reshape(-1))


@pytest.mark.parametrize("kind", NATIVE + THROUGH_GGUF)
def test_float32_equals_the_gguf_package(kind: str) -> None:
    rows, expected = random_rows(kind, 5, 512)
    values = raw(kind, rows, (5, 512)).float32()
    assert values.dtype == np.float32
    assert np.isfinite(values).all()
    assert_array_equal(values, expected)


@pytest.mark.parametrize("kind", [*NATIVE, "Q6_K"])
def test_rows_are_the_same_alone_and_together(kind: str) -> None:
    rows, expected = random_rows(kind, 7, 256)
    tensor = raw(kind, rows, (7, 256))
    assert_array_equal(tensor.float32(2, 5), expected[2:5])
    assert tensor.float32(3, 3).shape == (0, 256)


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_1", "F16"])
def test_a_vector_can_be_cut_inside_a_block(kind: str) -> None:
    rows, expected = random_rows(kind, 1, 96)
    assert_array_equal(raw(kind, rows, (96,)).float32(5, 70), expected[0, 5:70])


@pytest.mark.parametrize("kind", ["Q4_0", "Q5_0", "BF16"])
def test_more_than_one_slab_is_decoded(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_kinds, "SLAB", 96)
    rows, expected = random_rows(kind, 9, 64)
    assert_array_equal(raw(kind, rows, (9, 64)).float32(), expected)


@pytest.mark.parametrize("kind", [*NATIVE, "Q6_K"])
def test_memory_beyond_the_result_stays_small(kind: str) -> None:
    n_weights, n_bytes = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    n_in, n_rows = 4096, 2048
    data = np.zeros(n_rows * n_in // n_weights * n_bytes, dtype=np.uint8)
    tensor = RawTensor("w", (n_rows, n_in), kind, data)
    tracemalloc.start()
    try:
        values = tensor.float32()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert values.shape == (n_rows, n_in)
    assert peak < n_rows * n_in * 4 + (16 << 20)


def test_aligned_float32_is_a_read_only_view() -> None:
    data = np.arange(6, dtype=np.float32).view(np.uint8)
    data.flags.writeable = False
    values = RawTensor("w", (2, 3), "F32", data).float32(1)
    assert_array_equal(values, [[3, 4, 5]])
    assert np.shares_memory(values, data)
    assert not values.flags.writeable


def test_unaligned_float32_is_copied() -> None:
    data = np.zeros(9, dtype=np.uint8)[1:]
    assert RawTensor("w", (2,), "F32", data).float32().flags.aligned


def test_infinite_scales_are_passed_on_without_a_warning() -> None:
    block = np.zeros(34, dtype=np.uint8)
    block[:2] = np.array([np.inf], dtype=np.float16).view(np.uint8)
    assert np.isnan(RawTensor("w", (1, 32), "Q8_0", block).float32()).all()  # 0 * inf


def test_rows_outside_the_tensor_are_refused() -> None:
    tensor = RawTensor("w", (2, 3), "F32", np.zeros(24, dtype=np.uint8))
    with pytest.raises(ValueError, match=r"w has rows 0 to 2, asked for 1 to 3"):
        tensor.float32(1, 3)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("I64", r"^m.gguf: tensor 'w' is stored as I64, which the gguf package cannot dequantise$"),
        ("F8_E4M3", r"^m.gguf: tensor 'w' is stored as F8_E4M3, which is not a type this build"),
    ],
)
def test_kinds_that_nothing_reads_are_refused_by_name(kind: str, message: str) -> None:
    tensor = RawTensor("w", (2,), kind, np.zeros(16, dtype=np.uint8), "m.gguf")
    with pytest.raises(ValueError, match=message):
        tensor.float32()


@pytest.mark.parametrize("name", NATIVE)
def test_native_sizes_and_ids_are_those_of_ggml(name: str) -> None:
    type_ = gguf.GGMLQuantizationType[name]
    assert _kinds.NATIVE[int(type_)] == _kinds.Kind(name, *GGML_QUANT_SIZES[type_])
