"""Products compiled for lesser CPUs than this one; apart, so that two processes share the work."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engine.test_other_cpus import pytestmark, run_as, skip_unless_runnable

__all__ = ["pytestmark"]

_PRODUCTS = """
import numpy as np
from engine.formats import weight_format
from engine.kernels import cpu
from tests.engine.kernels.test_partial import inputs_of, rows_of, sparse_row, values_of, weight_of
from tests.engine.test_formats import product
rng = np.random.default_rng(0)
for name in ("q2", "q4", "q4_0", "q8"):
    packed = weight_format(name).quantize(rng.standard_normal((32, 64), np.float32))
    x = rng.standard_normal((5, 64), np.float32)
    expected = x @ weight_format(name).dequantize(packed).T
    assert np.abs(product(name, packed, x) - expected).max() < 3e-4 * np.abs(expected).max()
for name in ("q4", "q4_0", "q8", "f16"):
    weight = weight_of(rng, name, (48, 200))
    for active in (0.1, 1):
        x = sparse_row(rng, 200, active)
        expected, rows = values_of(weight) @ x, np.arange(1, 48, 3, dtype=np.int32)
        limit = 3e-4 * np.abs(expected).max()
        assert np.abs(inputs_of(weight, x) - expected).max() < limit
        assert np.abs(rows_of(weight, rows, x) - expected[rows]).max() < limit
print(cpu.instructions())
"""


@pytest.mark.parametrize(
    ("name", "instructions"),
    [
        ("sandybridge", "ssse3"),
        ("haswell", "avx2"),
        ("skylake-avx512", "avx512bw"),
        ("cascadelake", "avx512vnni"),
    ],
)
def test_products_are_the_same_on_another_cpu(tmp_path: Path, name: str, instructions: str) -> None:
    skip_unless_runnable(instructions)
    assert run_as(name, tmp_path, _PRODUCTS) == instructions
