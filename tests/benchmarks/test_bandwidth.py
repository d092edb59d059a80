"""Reading a small array, and what is made of several readings."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import bandwidth
from benchmarks.bandwidth import Bandwidth


def test_bandwidth_is_measured_for_each_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bandwidth, "_PASS_BYTES", 1 << 20)
    measured = bandwidth.read_bandwidths(1 << 16, [1, 2])
    assert [b[:2] for b in measured] == [(1 << 16, 1), (1 << 16, 2)]
    assert all(b.gb_s > 0 for b in measured)


def test_every_way_of_reading_reads_the_whole_array() -> None:
    for read in bandwidth._readers():
        assert read(np.ones(64, np.int64)) == 64


def test_typical_is_the_median_for_each_size_and_number_of_threads() -> None:
    measured = [Bandwidth(100, 2, gb_s) for gb_s in (30.0, 55.0, 31.0)] + [Bandwidth(9, 2, 70.0)]
    assert bandwidth.typical(measured) == [Bandwidth(100, 2, 31.0), Bandwidth(9, 2, 70.0)]
    assert bandwidth.read_gb_s(measured, 100, 2) == 31
    assert bandwidth.spread(measured[0], measured) == {"low": 30, "high": 55}
