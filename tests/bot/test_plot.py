from __future__ import annotations

import pytest

from bot.plot import Point, scatter


def test_points_lie_where_their_values_are() -> None:
    lines = scatter([Point("low", 0, 0), Point("high", 100, 10)], "speed", "loss", 21, 5)
    assert lines == [
        "      loss",
        "10.2 |                    b",
        "     |",
        "     |",
        "     |",
        "-0.2 |a",
        "     +---------------------",
        "      -2         102  speed",
        "      a = low",
        "      b = high",
    ]


def test_points_on_one_place_share_a_letter() -> None:
    lines = scatter([Point("one", 1, 1), Point("two", 1, 1), Point("far", 2, 1)], "x", "y")
    assert [line.strip() for line in lines[-2:]] == ["a = one, two", "b = far"]


@pytest.mark.parametrize("first", [1.0, -1234.5678, 0.00123, 1e9])
@pytest.mark.parametrize("apart", [1e-6, 0.0019, 0.3, 7.77])
def test_points_that_lie_close_together_are_told_apart(first: float, apart: float) -> None:
    values = [first + apart * abs(first) * share for share in (0, 0.5, 1)]
    lines = scatter([Point(f"p{v}", v, v) for v in values], "x", "y", 20, 7)
    marks = [(row, line.index(mark)) for row, line in enumerate(lines[1:8]) for mark in "abc"
             if mark in line.partition("|")[2]]  # fmt: skip
    rows, columns = zip(*marks, strict=True)
    assert rows == tuple(sorted(set(rows))) and columns == tuple(sorted(set(columns), reverse=True))


@pytest.mark.parametrize("value", [0.0, 5.0, -3.0])
def test_a_single_point_has_a_picture(value: float) -> None:
    lines = scatter([Point("only", value, value)], "x", "y", 20, 4)
    assert sum("a" in line.partition("|")[2] for line in lines) == 1
