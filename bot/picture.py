"""Points as a PNG: the same picture that plot.py makes of characters."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bot.plot import Point, span
from bot.raster import Canvas, Colour, text_width

WIDTH, HEIGHT = 960, 480
_LEFT, _TOP, _RIGHT, _BOTTOM = 70, 40, 560, 410  # of the plot
_GREY: Colour = (150, 150, 150)
_LIGHT: Colour = (225, 225, 225)
_COLOURS: tuple[Colour, ...] = (
    (31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189),
    (140, 86, 75), (227, 119, 194), (23, 190, 207), (120, 120, 20), (60, 60, 60),
)  # fmt: skip


def draw(
    points: Sequence[Point], x_name: str, y_name: str, marks: Sequence[tuple[float, str]] = ()
) -> Canvas:
    """Points with their errors, and a legend with their figures.

    marks  heights to be marked by a line across, if they are in the picture
    """
    canvas = Canvas(WIDTH, HEIGHT)
    low_x, high_x = span([point.x for point in points])
    tops = [point.y + 1.96 * point.error for point in points]
    low_y, high_y = span([*(point.y for point in points), *tops])
    low_y = 0.0 if min(point.y for point in points) >= 0 else low_y

    def place(x: float, y: float) -> tuple[float, float]:
        across, up = (x - low_x) / (high_x - low_x), (y - low_y) / (high_y - low_y)
        return _LEFT + across * (_RIGHT - _LEFT), _BOTTOM - up * (_BOTTOM - _TOP)

    for x in ticks(low_x, high_x):
        across = place(x, low_y)[0]
        canvas.line([(across, _TOP), (across, _BOTTOM)], 1, _LIGHT)
        _centred(canvas, across, _BOTTOM + 10, f"{x:g}")
    for y in ticks(low_y, high_y):
        up = place(low_x, y)[1]
        canvas.line([(_LEFT, up), (_RIGHT, up)], 1, _LIGHT)
        canvas.words((_LEFT - 10 - text_width(f"{y:g}"), up - 4), f"{y:g}")
    for height, text in marks:
        if low_y <= height <= high_y:
            at = place(low_x, height)[1]
            canvas.line([(_LEFT, at), (_RIGHT, at)], 1, _GREY)
            canvas.words((_RIGHT - text_width(text, 1.3), at - 13), text, 1.3, _GREY)
    canvas.line([(_LEFT, _TOP), (_LEFT, _BOTTOM), (_RIGHT, _BOTTOM)], 1.5)
    canvas.words((_LEFT - 50, _TOP - 24), y_name)
    _centred(canvas, (_LEFT + _RIGHT) / 2, _BOTTOM + 34, x_name)
    for i, point in enumerate(points):
        colour = _COLOURS[i % len(_COLOURS)]
        error = 1.96 * point.error
        ends = [place(point.x, max(low_y, point.y - error)), place(point.x, point.y + error)]
        canvas.line(ends, 1.5, colour)
        canvas.line([place(point.x, point.y)], 9, colour)
        _legend(canvas, i, point, colour)
    return canvas


def ticks(low: float, high: float) -> list[float]:
    """Round numbers between, 3 to 8 of them."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = min((1, 2, 5, 10), key=lambda factor: abs(factor * power - rough)) * power
    first = math.ceil(low / step)
    return [float(f"{step * i:.6g}") for i in range(first, math.floor(high / step) + 1)]


def _legend(canvas: Canvas, i: int, point: Point, colour: Colour) -> None:
    top = _TOP + 34 * i
    canvas.line([(_RIGHT + 24, top + 5)], 9, colour)
    canvas.words((_RIGHT + 38, top), point.name)
    figures = f"{point.x:.2f}, {point.y:.2f}" + (f" +- {point.error:.2f}" if point.error else "")
    canvas.words((_RIGHT + 38, top + 15), figures, 1.3, _GREY)


def _centred(canvas: Canvas, x: float, y: float, text: str) -> None:
    canvas.words((x - text_width(text) / 2, y), text)
