"""Pictures without a library: what is drawn is where it belongs, and a PNG is one."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest

from bot import picture, strokes
from bot.plot import Point
from bot.raster import BLACK, Canvas, text_width


def decoded(data: bytes) -> np.ndarray:
    """The pixels of a PNG as this project writes them, its checksums checked."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, parts = 8, {}
    while at < len(data):
        (n,) = struct.unpack(">I", data[at : at + 4])
        kind, content = data[at + 4 : at + 8], data[at + 8 : at + 8 + n]
        (checksum,) = struct.unpack(">I", data[at + 8 + n : at + 12 + n])
        assert checksum == zlib.crc32(kind + content)
        parts[kind] = content
        at += 12 + n
    assert list(parts) == [b"IHDR", b"IDAT", b"IEND"]
    width, height, *rest = struct.unpack(">IIBBBBB", parts[b"IHDR"])
    assert rest == [8, 2, 0, 0, 0]
    lines = np.frombuffer(zlib.decompress(parts[b"IDAT"]), np.uint8).reshape(height, -1)
    assert not lines[:, 0].any()
    return lines[:, 1:].reshape(height, width, 3)


def test_a_png_holds_the_pixels() -> None:
    canvas = Canvas(7, 5)
    canvas.line([(2, 1), (5, 1)], 1, (255, 0, 0))
    pixels = decoded(canvas.png())
    assert pixels.shape == (5, 7, 3)
    assert (pixels[1, 2:6] == [255, 0, 0]).all()
    assert (pixels[3:] == 255).all()


def test_a_point_is_a_disc_and_lines_end_at_the_edge() -> None:
    canvas = Canvas(40, 40)
    canvas.line([(20, 20)], 10)
    assert (255 - canvas.pixels).mean(axis=2).sum() / 255 == pytest.approx(np.pi * 25, rel=0.03)
    canvas.line([(-50, 5), (500, 5)], 2)
    canvas.line([(100, 100)], 9)  # nowhere
    assert (canvas.pixels[5] < 10).all()


def test_words_take_the_room_that_they_say() -> None:
    canvas = Canvas(200, 30)
    canvas.words((10, 10), "mmmm", 2, BLACK)
    columns = np.flatnonzero((canvas.pixels < 128).any(axis=(0, 2)))
    assert 9 <= columns[0] and columns[-1] <= 10 + text_width("mmmm", 2)
    assert text_width("mmmm", 2) == 48


def test_all_that_a_report_says_can_be_written() -> None:
    printable = {chr(code) for code in range(33, 127)}
    assert (
        not set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
        - strokes.GLYPHS.keys()
    )
    assert strokes.GLYPHS.keys() <= printable
    for character in strokes.GLYPHS:
        for stroke in strokes.strokes_of(character):
            assert len(stroke) > 1 and all(x <= 4 and y <= 8 for x, y in stroke)
    assert strokes.strokes_of(" ") == strokes.strokes_of("é") == []


def test_points_lie_where_their_figures_say() -> None:
    points = [Point("off", 1.0, 0.0), Point("fast", 1.5, 4.0, 0.5), Point("x", 1.25, 2.0)]
    canvas = picture.draw(points, "speed", "loss", [(2.0, "at most 2 %"), (9.0, "out")])
    pixels = decoded(canvas.png())
    centres = []
    for colour in picture._COLOURS[:3]:
        rows, columns = np.nonzero((pixels == colour).all(axis=2))
        inside = columns < 560
        rows, columns = rows[inside], columns[inside]
        wide = np.bincount(rows).argmax()  # a disc, not a line of its error
        centres.append((columns.mean(), wide))
    (x0, y0), (x1, y1), (x2, y2) = centres
    assert x0 < x2 < x1 and y0 > y2 > y1
    assert x2 == pytest.approx((x0 + x1) / 2, abs=2) and y2 == pytest.approx((y0 + y1) / 2, abs=3)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.89, 1.34, [0.9, 1.0, 1.1, 1.2, 1.3]),
        (0.0, 4.67, [0.0, 1.0, 2.0, 3.0, 4.0]),
        (-3, 12, [-2.0, 0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0]),
    ],
)
def test_scales_have_round_numbers(low: float, high: float, expected: list[float]) -> None:
    assert picture.ticks(low, high) == expected
