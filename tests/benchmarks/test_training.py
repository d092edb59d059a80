"""The arithmetic of the training benchmark's rows, and its pieces; nothing is trained here."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks import (
    options,
    training,
    training_learned,
    training_quality,
    training_resume,
    training_rows,
    training_speed,
)
from benchmarks.kept import Kept, OutOfTime
from benchmarks.report import Row
from benchmarks.training_speed import Bench


def bench(kept: Kept | None = None, quick: bool = False) -> Bench:
    chosen = options.Options(
        name="training", label=options.DEFAULT, model=Path("model.gguf"), formats=("stored",),
        peer=None, quick=quick, save=False, threads=(1, 2), rounds=2,
    )  # fmt: skip
    paths = (Path(name) for name in ("mixed", "held-out", "talk", "talk-held-out"))
    return Bench(chosen, training_rows.Data(*paths), kept or Kept(), "auto")


def of_pieces(values: Mapping[str, Any], tmp_path: Path) -> Kept:
    """Pieces that were made before."""
    kept = Kept(tmp_path / "kept.json")
    for name, value in values.items():
        kept.get(name, lambda value=value: value)
    return Kept(tmp_path / "kept.json", seconds=-1)


def piece(ours: float, peer: float | None) -> dict[str, Any]:
    theirs = None if peer is None else [2.0, 2 * peer]
    return {"rounds": [[[4.0, 4 * ours], theirs, [[1, 0], [3, 0]]]], "base": "int8", "cosine": 0.99}


def test_speed_is_the_median_of_steps_in_tokens_a_second(tmp_path: Path) -> None:
    made = {
        f"speed, {case.name}, {i}": piece(300 + i, 50)
        for case in training_speed.CASES
        for i in range(training_speed.PIECES)
    }
    rows = training_speed.speed(bench(of_pieces(made, tmp_path)))
    assert [row.case for row in rows] == [case.name for case in training_speed.CASES]
    found = rows[0].as_json()
    assert (found["ours"], found["peer"], found["ratio"]) == (302, 50, 6.04)
    assert (found["base"], found["steps"], found["foreign_percent"]) == ("int8", 5, 2)


def test_speed_of_other_kinds_is_what_was_kept(tmp_path: Path) -> None:
    kept = of_pieces({f"speed, {training_speed.CASES[1].name}, 0": piece(300, 50)}, tmp_path)
    rows = training_speed.speed(bench(kept)._replace(kinds=frozenset()))
    assert [row.case for row in rows] == [training_speed.CASES[1].name]


def test_a_peer_that_is_missing_leaves_ours_alone() -> None:
    row = Row("LoRA", 2, "training", "tok/s")
    training_speed.add_rounds(row, piece(300, None))
    assert (row.as_json()["ours"], row.as_json()["ratio"]) == (300, None)


def test_full_fine_tuning_has_no_base() -> None:
    assert bench().settings("a", 1)["base"] == "auto"
    assert "base" not in bench().settings("a", 1, method="full")


def test_memory_is_a_share_of_the_peers(tmp_path: Path) -> None:
    made: dict[str, Any] = {f"memory, {kind}": 4_000_000_000 for kind in training_speed.KINDS}
    made |= {f"memory, {name}": 1_000_000_000 for name in training_speed.OURS}
    rows = training_speed.memory(bench(of_pieces(made, tmp_path)))
    found = rows[0].as_json()
    assert (found["ours"], found["peer"], found["share"]) == (1, 4, 0.25)
    made[f"memory, {next(iter(training_speed.OURS))}"] = None
    (tmp_path / "kept.json").unlink()
    rows = training_speed.memory(bench(of_pieces(made, tmp_path)))
    assert rows[0].as_json()["share"] is None


def test_the_worst_seed_counts_for_quality() -> None:
    row = Row("LoRA", 2, "held-out loss", "nats")
    training_quality.fill(row, [1.0, 1.2, 1.1], [1.01, 1.195, 1.1], 2.0)
    assert row.extra["worst"] == pytest.approx(0.005)
    assert row.extra["differences"] == [-0.01, 0.005, 0.0]
    assert (row.as_json()["rounds"], row.extra["before"]) == (3, 2.0)


def test_quality_goes_on_where_it_ended(tmp_path: Path) -> None:
    steps = training_quality.STEPS
    made: dict[str, Any] = {"quality, before": {"loss": 2.0}}
    made[f"quality, {training_quality.OURS}, {steps} steps, seed 0"] = {"loss": 1.5}
    with pytest.raises(OutOfTime, match="8-bit AdamW, 300 steps, seed 0"):
        training_quality.quality(bench(of_pieces(made, tmp_path)))


def test_the_peer_gets_the_learning_rates_of_ours() -> None:
    rates = training_quality.rates(100)
    assert max(rates) == pytest.approx(2e-4)
    assert rates[0] == pytest.approx(2e-4 / 3)
    assert 0 < rates[-1] < 1e-6


def test_losses_of_a_resumed_run_differ_by_the_largest_of_all_steps() -> None:
    assert training_resume.difference([3.0, 2.0, 1.0], [3.0, 2.5, 0.9]) == 0.5
    assert training_resume.difference([3.0, 2.0], [3.0]) == math.inf


def test_an_optimizers_time_is_of_a_parameter(tmp_path: Path) -> None:
    times = {"adamw8bit": 1e-9, "torch fused": 2e-9, "torch default": 5e-9, "adamw": 2e-9}
    kept = of_pieces({"optimizer, 1": [times], "optimizer, 2": [times]}, tmp_path)
    found = [row.as_json() for row in training_resume.optimizers(bench(kept))]
    assert [(row["threads"], row["ours"], row["ratio"]) for row in found[:3]] == [
        (1, 1, 2), (1, 1, 5), (1, 2, 1),
    ]  # fmt: skip


def test_an_answer_matches_without_capitals_and_signs_and_f1_counts_words() -> None:
    known = [["I am a robot.", "No"], ["It is blue, blue."]]
    found = training_learned.scores(["i am a ROBOT", "blue it was"], known)
    assert found["match"] == 0.5
    assert found["f1"] == pytest.approx((1 + 2 * 2 / (4 + 3)) / 2)
    assert training_learned.f1("", "a") == 0


def test_rows_that_are_missing_are_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(options, "_model", lambda parser, name: (name, tmp_path / "model.gguf"))
    monkeypatch.setattr(sys, "argv", ["training", "--rows", str(tmp_path / "none.jsonl")])
    with pytest.raises(SystemExit, match="is no file; --rows"):
        training.main()
