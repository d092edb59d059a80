"""Distances between logits that were made up."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import quality
from benchmarks.quality import Distance, rows_of


def logits_of(*rows: list[float]) -> np.ndarray:
    return np.log(np.asarray(rows, np.float32))


def test_distance_is_the_mean_divergence_the_agreement_and_the_worst_error() -> None:
    reference = logits_of([0.5, 0.5], [0.9, 0.1])
    ours = logits_of([0.5, 0.5], [0.1, 0.9])
    found = Distance()
    found.add(reference, ours)
    figures = found.figures()
    assert figures["KL"] == pytest.approx((0.9 * np.log(9) + 0.1 * np.log(1 / 9)) / 2, rel=1e-6)
    assert figures["top-1"] == 0.5
    assert figures["worst error"] == pytest.approx(np.log(9) / -np.log(0.1), rel=1e-6)
    assert found.n_positions == 2


def test_distance_does_not_depend_on_how_texts_are_cut(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference, ours = rng.standard_normal((2, 20, 5), dtype=np.float32)
    whole, parts = Distance(), Distance()
    whole.add(reference, ours)
    monkeypatch.setattr(quality, "_CHUNK", 3)
    parts.add(reference[:7], ours[:7])
    parts.add(reference[7:], ours[7:])
    assert parts.figures() == pytest.approx(whole.figures())


def test_constant_offset_of_all_logits_has_no_divergence(rng: np.random.Generator) -> None:
    reference = rng.standard_normal((3, 7), dtype=np.float32)
    found = Distance()
    found.add(reference, reference + 1)
    assert found.figures()["KL"] == pytest.approx(0, abs=1e-9)
    assert found.figures()["top-1"] == 1


def test_rows_say_which_side_is_nearer_to_the_reference(rng: np.random.Generator) -> None:
    reference = rng.standard_normal((50, 9), dtype=np.float32)
    near, far = Distance(), Distance()
    near.add(reference, reference + 0.01 * rng.standard_normal((50, 9), dtype=np.float32))
    far.add(reference, reference + rng.standard_normal((50, 9), dtype=np.float32))
    rows = {row.metric: row.as_json() for row in rows_of("Q4_1 file", 2, near, far)}
    assert list(rows) == ["KL", "top-1", "worst error"]
    assert all(row["ratio"] > 1 and row["positions"] == 50 for row in rows.values())


def test_side_that_is_missing_leaves_its_columns_empty(rng: np.random.Generator) -> None:
    ours = Distance()
    reference = rng.standard_normal((4, 3), dtype=np.float32)
    ours.add(reference, reference + 0.5 * rng.standard_normal((4, 3), dtype=np.float32))
    assert rows_of("Q4_1 file", 2, None, ours) == []
    row = rows_of("Q4_1 file", 2, ours, None)[0].as_json()
    assert row["ours"] > 0 and row["peer"] is None and row["peer_name"] is None
