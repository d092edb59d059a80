"""Pieces are made once, and a run that is over begins no new one."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.kept import Kept, OutOfTime


def test_a_piece_is_made_once_and_again_after_its_file_is_gone(tmp_path: Path) -> None:
    path, made = tmp_path / "folder" / "kept.json", []

    def make(value: int) -> list[int]:
        made.append(value)
        return [value]

    assert Kept(path).get("a", make, 1) == [1]
    assert Kept(path).get("a", make, 2) == [1]
    assert Kept(path).get("b", make, 3) == [3]
    path.unlink()
    assert Kept(path).get("a", make, 4) == [4]
    assert made == [1, 3, 4]


def test_without_a_path_pieces_are_of_this_run_alone() -> None:
    assert Kept().get("a", int, "1") == 1
    assert Kept().get("a", int, "2") == 2


def test_nothing_new_is_begun_when_the_seconds_are_over_but_what_is_there_is_given(
    tmp_path: Path,
) -> None:
    path = tmp_path / "kept.json"
    Kept(path).get("a", int, "1")
    late = Kept(path, seconds=-1)
    assert late.get("a", int, "2") == 1
    with pytest.raises(OutOfTime, match="b"):
        late.get("b", int, "2")
    assert Kept(path, seconds=60).get("b", int, "2") == 2
