"""Forced sparsity on a small model: what is left out, and what is counted as read."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import feed_forward
from engine.model import Model
from tests.engine.decoders import small_config, small_model

IDS = [5, 17, 3, 88, 42, 42, 7, 61, 0, 96, 33, 12] * 4


@pytest.fixture
def model(home: Path) -> Model:
    return small_model("q4_0", config=small_config(hidden_size=128, intermediate_size=512))


def test_each_share_reads_fewer_bytes_than_the_one_before(model: Model) -> None:
    everything, *others = feed_forward.settings(model, IDS)
    assert everything.sparse is None and everything.share == 0
    assert [other.name for other in others] == [f"{n} % left out" for n in (70, 80, 90)]
    for other, share in zip(others, feed_forward.SHARES, strict=True):
        assert other.share == pytest.approx(share, abs=0.06)
    n_bytes = [each.n_bytes for each in (everything, *others)]
    assert n_bytes == sorted(n_bytes, reverse=True)
    parts = sum(w.data.nbytes for n, w in model.weights.matrices.items() if "w_gate" not in n)
    assert n_bytes[-1] > model.n_bytes - parts


def test_rows_hold_both_sides_and_the_byte_limit(model: Model) -> None:
    found = feed_forward.settings(model, IDS)
    rows = feed_forward.compare(model, found, IDS[:8], "small", rounds=2)
    assert [len(row.ours) for row in rows] == [2, 2, 2]
    for row, other in zip(rows, found[1:], strict=True):
        assert row.peer_name == "everything" and min(row.ratios()) > 0
        assert row.extra["byte_limit"] == found[0].n_bytes / other.n_bytes > 1
    assert "% reached" in feed_forward.limits(rows)
