"""Points in a terminal: a small picture for when no image can be shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

_MARKS = "abcdefghijklmnopqrstuvwxyz"


class Point(NamedTuple):
    """One thing that was measured, and where it lies."""

    name: str
    x: float
    y: float


def scatter(
    points: Sequence[Point], x_name: str, y_name: str, width: int = 60, height: int = 12
) -> list[str]:
    """Lines: the picture, its scales, and what each letter stands for; at most 26 points.

    Points that fall on one place share the letter of the first.
    """
    points = points[: len(_MARKS)]
    low_x, high_x = _span([point.x for point in points])
    low_y, high_y = _span([point.y for point in points])
    cells = [[" "] * width for _ in range(height)]
    letters: dict[tuple[int, int], str] = {}
    legend: dict[str, list[str]] = {}
    for point in points:
        column = round((point.x - low_x) / (high_x - low_x) * (width - 1))
        row = round((high_y - point.y) / (high_y - low_y) * (height - 1))
        letter = letters.setdefault((row, column), _MARKS[len(letters)])
        cells[row][column] = letter
        legend.setdefault(letter, []).append(point.name)
    scale = [f"{high_y:g}", *[""] * (height - 2), f"{low_y:g}"]
    side = max(map(len, scale))
    lines = [f"{'':{side}}  {y_name}"]
    lines += [f"{mark:>{side}} |{''.join(row)}".rstrip() for mark, row in zip(scale, cells)]  # noqa: B905
    lines.append(f"{'':{side}} +{'-' * width}")
    left, right = f"{low_x:g}", f"{high_x:g}  {x_name}"
    lines.append(f"{'':{side}}  {left}{right:>{max(0, width - len(left))}}")
    return lines + [
        f"{'':{side}}  {letter} = {', '.join(names)}" for letter, names in legend.items()
    ]


def _span(values: Sequence[float]) -> tuple[float, float]:
    """From the smallest value to the largest, rounded outwards to three digits, never empty."""
    low, high = min(values), max(values)
    reach = (high - low) or abs(high) or 1.0
    return float(f"{low - 0.02 * reach:.3g}"), float(f"{high + 0.02 * reach:.3g}")
