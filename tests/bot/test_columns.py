"""Two texts beside each other."""

from __future__ import annotations

import pytest
from prompt_toolkit.utils import get_cwidth

from bot import columns
from bot.columns import GAP, side_by_side


def test_lines_are_cut_between_words_and_stand_in_columns() -> None:
    assert side_by_side("one two three four", "a b", 2 * 9 + len(GAP)) == [
        "one two   | a b",
        "three     |",
        "four      |",
    ]


def test_longer_right_side_goes_on_alone() -> None:
    assert side_by_side("x", "1\n2\n\n3", 20) == ["x        | 1", "         | 2", "         |",
                                                  "         | 3"]  # fmt: skip


def test_indentation_stays_and_long_words_are_cut() -> None:
    lines = side_by_side("def f():\n    return 1", "abcdefghijklmnop", 2 * 12 + len(GAP))
    assert lines == ["def f():     | abcdefghijkl", "    return 1 | mnop"]


@pytest.mark.parametrize(
    "text", ["日本語のテキストです、とても長い", "wide 日本語 and 👍 narrow", "é" * 50, "a\tb" * 9]
)
@pytest.mark.parametrize("width", [15, 22, 63])
def test_no_line_is_wider_than_the_terminal_and_no_letter_is_lost(text: str, width: int) -> None:
    lines = side_by_side(text, text, width)
    assert max(map(get_cwidth, lines)) <= width
    left = "".join(line.split(GAP.rstrip())[0] for line in lines)
    assert [c for c in left if not c.isspace()] == [c for c in text if not c.isspace()]


def test_narrow_terminals_have_no_room() -> None:
    assert columns.fits(80)
    assert not columns.fits(2 * columns.LEAST + len(GAP) - 1)
