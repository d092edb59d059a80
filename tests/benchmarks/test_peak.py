"""The kernels that measure the peak do all the multiplications that are counted."""

from __future__ import annotations

import numpy as np

from benchmarks import peak


def test_every_product_is_in_the_sum() -> None:
    values = np.ones(64 * peak._VECTORS, np.uint8)
    for n_sums, kernel in peak._kernels():
        assert kernel(values, 37) == 37 * n_sums * peak._PRODUCTS


def test_peak_is_a_rate() -> None:
    assert 0 < peak.int8_peak(1) < 1e6
