"""A canvas for lines, discs and words, written as a PNG: no library has to be there for it.

Everything is a line of some width with soft edges; a disc is a line of no length.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bot import strokes

Colour = tuple[int, int, int]
Place = tuple[float, float]  # from the left, from the top
BLACK: Colour = (0, 0, 0)


class Canvas:
    """White; pixels float32 (height, width, 3) from 0 to 255."""

    def __init__(self, width: int, height: int) -> None:
        self.pixels: NDArray[np.float32] = np.full((height, width, 3), 255, np.float32)

    def line(self, points: Sequence[Place], width: float, colour: Colour = BLACK) -> None:
        """From point to point; of one point a disc."""
        for start, end in zip(points, points[1:] or points, strict=False):
            self._segment(start, end, width, colour)

    def words(self, at: Place, text: str, size: float = 1.5, colour: Colour = BLACK) -> None:
        """Text whose capitals begin at `at` and are 6 sizes high."""
        left, top = at
        for character in text:
            for stroke in strokes.strokes_of(character):
                points = [(left + size * x, top + size * y) for x, y in stroke]
                self.line(points, 0.9 * size, colour)
            left += strokes.ADVANCE * size

    def png(self) -> bytes:
        """The picture as a file's content."""
        rows = np.clip(np.rint(self.pixels), 0, 255).astype(np.uint8)
        height, width, _ = rows.shape
        lines = np.concatenate([np.zeros((height, 1), np.uint8), rows.reshape(height, -1)], axis=1)
        header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        parts = (b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b"")
        return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in parts)

    def save(self, path: Path) -> None:
        """Write a PNG."""
        path.write_bytes(self.png())

    def _segment(self, start: Place, end: Place, width: float, colour: Colour) -> None:
        half = width / 2
        height, breadth, _ = self.pixels.shape
        (x0, y0), (x1, y1) = start, end
        left, right = _span(x0, x1, half, breadth)
        top, bottom = _span(y0, y1, half, height)
        if left >= right or top >= bottom:
            return
        x = np.arange(left, right, dtype=np.float32)[None, :] - x0
        y = np.arange(top, bottom, dtype=np.float32)[:, None] - y0
        along_x, along_y = x1 - x0, y1 - y0
        length = along_x * along_x + along_y * along_y
        t = np.clip((x * along_x + y * along_y) / length, 0, 1) if length else np.zeros_like(x * y)
        distance = np.hypot(x - t * along_x, y - t * along_y)
        cover = np.clip(half + 0.5 - distance, 0, 1)[:, :, None].astype(np.float32)
        part = self.pixels[top:bottom, left:right]
        part += cover * (np.array(colour, np.float32) - part)


def text_width(text: str, size: float = 1.5) -> float:
    """How far Canvas.words goes."""
    return strokes.ADVANCE * size * len(text)


def _span(a: float, b: float, half: float, end: int) -> tuple[int, int]:
    """The pixels that a line between may touch."""
    return max(0, int(min(a, b) - half - 1)), min(end, int(max(a, b) + half + 3))


def _chunk(kind: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)
