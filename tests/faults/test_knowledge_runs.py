"""A few of the kills, flips and readers that benchmarks/kb_faults.py does by the hundred."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import kb_driver, kb_faults


@pytest.mark.slow
def test_kills_lose_no_commit_and_damage_no_base(tmp_path: Path) -> None:
    row = kb_faults.kills(tmp_path / "kills", 6)
    assert row.ours == [0] and row.extra["damaged"] == 0
    assert row.extra["operations"] > 6


@pytest.mark.slow
def test_flips_and_cuts_are_noticed_or_harmless(tmp_path: Path) -> None:
    (tmp_path / "flips").mkdir()
    row = kb_faults.flips(tmp_path / "flips", 12)
    assert row.ours == [0]
    assert row.extra["noticed"] > 3


@pytest.mark.slow
def test_readers_beside_a_writer_see_every_commit(tmp_path: Path) -> None:
    row = kb_faults.readers(tmp_path, 3)
    assert row.ours == [0]
    assert row.extra["reads"] > 8


def test_an_edited_paragraph_costs_its_chunks(tmp_path: Path) -> None:
    seconds, anew = kb_faults.edit(tmp_path, 30)
    assert len(seconds.ours) == 5
    assert max(n for n in anew.ours if n is not None) <= 3


def test_the_driver_tells_equal_answers_from_others() -> None:
    told = ["texts", [[[1, 2, 3], [0.9, 0.8, 0.7]]]]
    assert kb_driver.is_same(told, ["texts", [[[1, 2, 4], [0.9, 0.8, 0.7]]]])
    assert not kb_driver.is_same(told, ["texts", [[[1, 5, 3], [0.9, 0.8, 0.7]]]])
    assert not kb_driver.is_same(told, ["texts", [[[1, 2, 3], [0.9, 0.8, 0.6]]]])
    assert not kb_driver.is_same(told, ["other", told[1]])
