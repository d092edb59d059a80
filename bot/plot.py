"""Points in a terminal: a small picture for when no image can be shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

_MARKS = "abcdefghijklmnopqrstuvwxyz"


class Point(NamedTuple):
    """One thing that was measured, and where it lies; error: the standard error of y."""

    name: str
    x: float
    y: float
    error: float = 0.0


def scatter(
    points: Sequence[Point], x_name: str, y_name: str, width: int = 60, height: int = 12
) -> list[str]:
    """Lines: the picture, its scales, and what each letter stands for; at most 26 points.

    Points that fall on one place share the letter of the first.
    """
    points = points[: len(_MARKS)]
    low_x, high_x = span([point.x for point in points])
    low_y, high_y = span([point.y for point in points])
    cells = [[" "] * width for _ in range(height)]
    letters: dict[tuple[int, int], str] = {}
    legend: dict[str, list[str]] = {}
    for point in points:
        column = round((point.x - low_x) / (high_x - low_x) * (width - 1))
        row = round((high_y - point.y) / (high_y - low_y) * (height - 1))
        letter = letters.setdefault((row, column), _MARKS[len(letters)])
        cells[row][column] = letter
        legend.setdefault(letter, []).append(point.name)
    lines = _framed(cells, (low_x, high_x), (low_y, high_y), x_name, y_name)
    side = lines[0].index(y_name) - 2
    return lines + [
        f"{'':{side}}  {letter} = {', '.join(names)}" for letter, names in legend.items()
    ]


class Curve(NamedTuple):
    """Points (x, y) that are shown by one mark; later curves lie over earlier ones."""

    name: str
    mark: str
    points: Sequence[tuple[float, float]]


def curves(
    shown: Sequence[Curve], x_name: str, y_name: str, width: int = 60, height: int = 12
) -> list[str]:
    """Lines: the picture, its scales, and what each mark stands for. There is a point in it."""
    points = [point for curve in shown for point in curve.points]
    low_x, high_x = span([x for x, _ in points])
    low_y, high_y = span([y for _, y in points])
    cells = [[" "] * width for _ in range(height)]
    for curve in shown:
        for x, y in curve.points:
            column = round((x - low_x) / (high_x - low_x) * (width - 1))
            row = round((high_y - y) / (high_y - low_y) * (height - 1))
            cells[row][column] = curve.mark
    lines = _framed(cells, (low_x, high_x), (low_y, high_y), x_name, y_name)
    return [*lines, "  " + ", ".join(f"{curve.mark} {curve.name}" for curve in shown)]


def _framed(
    cells: list[list[str]],
    x_span: tuple[float, float],
    y_span: tuple[float, float],
    x_name: str,
    y_name: str,
) -> list[str]:
    """The cells with scales beside and below them."""
    scale = [f"{y_span[1]:g}", *[""] * (len(cells) - 2), f"{y_span[0]:g}"]
    side, width = max(map(len, scale)), len(cells[0])
    lines = [f"{'':{side}}  {y_name}"]
    lines += [
        f"{mark:>{side}} |{''.join(row)}".rstrip() for mark, row in zip(scale, cells, strict=True)
    ]
    lines.append(f"{'':{side}} +{'-' * width}")
    left, right = f"{x_span[0]:g}", f"{x_span[1]:g}  {x_name}"
    return [*lines, f"{'':{side}}  {left}{right:>{max(0, width - len(left))}}"]


def span(values: Sequence[float]) -> tuple[float, float]:
    """From the smallest value to the largest and a little more, in round numbers; never empty."""
    low, high = min(values), max(values)
    reach = (high - low) or abs(high) or 1.0
    digits = 2 - math.floor(math.log10(reach))  # behind the point: three that tell values apart
    step, margin = 10.0**-digits, 0.02 * reach
    below, above = math.floor((low - margin) / step), math.ceil((high + margin) / step)
    return round(below * step, digits), round(above * step, digits)
