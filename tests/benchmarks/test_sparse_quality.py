"""Figures from sums of texts."""

from __future__ import annotations

import math

import pytest

from benchmarks import sparse_quality
from benchmarks.divergence import METRICS
from benchmarks.sparse_texts import Text


def piece(n: int, divergence: float, n_bytes: int) -> dict[str, float]:
    sums = dict.fromkeys(METRICS, float(n)) | {"KL": divergence}
    return {"n": n, "groups": 10.0, "bytes": n_bytes, **sums}


def test_rows_are_means_over_positions_with_errors_over_texts() -> None:
    rows = sparse_quality.rows_of(
        "fast, top 40, chat", 2, [piece(100, 1.0, 60_000_000), piece(300, 3.0, 80_000_000)]
    )
    found = {row.metric: row for row in rows}
    assert found["KL"].ours == [pytest.approx(0.01)]
    assert found["KL"].extra["positions"] == 400
    assert found["KL"].extra["standard_error"] == pytest.approx(0)  # both texts have the same mean
    assert found["exp(KL) - 1"].ours == [pytest.approx(math.exp(0.01) - 1)]
    assert found["top-1"].ours == [1.0]
    assert found["bytes of weights a token"].ours == [pytest.approx(75.0)]
    assert {row.case for row in rows} == {"fast, top 40, chat"}


def test_less_of_a_distance_is_better_and_more_of_an_agreement() -> None:
    rows = sparse_quality.rows_of("fast, greedy, chat", 1, [piece(10, 1.0, 1)] * 2)
    assert {row.metric for row in rows if not row.less_is_better} == {
        "top-1", "recall of the top 40",
    }  # fmt: skip


def test_kinds_of_text_take_turns() -> None:
    texts = [Text(kind, [i], 0) for i, kind in enumerate(["chat", "chat", "technical", "chat"])]
    assert [i for i, _ in sparse_quality.in_turns(texts)] == [0, 2, 1, 3]
