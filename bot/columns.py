"""Two texts side by side in the columns of a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest

from prompt_toolkit.utils import get_cwidth

GAP = " | "
LEAST = 30  # columns of a text: below, lines of two or three words are no help to anybody


def fits(width: int) -> bool:
    """Whether there is room for two texts."""
    return (width - len(GAP)) // 2 >= LEAST


def side_by_side(left: str, right: str, width: int) -> list[str]:
    """Lines of at most `width` columns; East Asian letters take two."""
    column = (width - len(GAP)) // 2
    pairs = zip_longest(_wrapped(left, column), _wrapped(right, column), fillvalue="")
    return [f"{a}{' ' * (column - get_cwidth(a))}{GAP}{b}".rstrip() for a, b in pairs]


def _wrapped(text: str, width: int) -> Iterator[str]:
    """Lines cut between words where that is possible; indentation and empty lines stay."""
    for line in text.expandtabs(4).split("\n"):
        yield from _cut(line.rstrip(), width)


def _cut(line: str, width: int) -> Iterator[str]:
    while get_cwidth(line) > width:
        end = _n_fitting(line, width)
        # from the second word on: a cut before the first would leave an empty line
        blank = line.rfind(" ", len(line) - len(line.lstrip()), end + 1)
        end = blank if blank > 0 else end
        yield line[:end].rstrip()
        line = line[end:].lstrip()
    yield line


def _n_fitting(line: str, width: int) -> int:
    """How many letters take at most `width` columns; at least one."""
    taken = 0
    for n, letter in enumerate(line):
        taken += get_cwidth(letter)
        if taken > width:
            return max(n, 1)
    return len(line)
