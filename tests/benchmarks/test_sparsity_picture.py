"""Points of quality and speed, drawn in characters."""

from __future__ import annotations

from typing import Any

from benchmarks import sparsity_picture
from benchmarks.report import Row


def rows(*, threads: int = 2) -> list[dict[str, Any]]:
    found = []
    for name, ratio, loss in (("balanced", 1.3, 0.01), ("fast", 1.5, 0.04)):
        for n, factor in ((1, 0.9), (threads, 1.0)):
            speed = Row(f"{name}, top 40", n, "decode", "tok/s", "off")
            speed.add(100 * ratio * factor, 100)
            found.append(speed)
        for kind, factor in (("chat", 1), ("technical", 3)):
            quality = Row(f"{name}, top 40, {kind}", threads, "exp(KL) - 1", "")
            quality.add(loss * factor)
            quality.extra = {"standard_error": loss / 10}
            found.append(quality)
    return [row.as_json() for row in found]


def test_points_are_those_of_chat_and_of_the_most_threads() -> None:
    found = sparsity_picture.points(rows())
    assert [(point.name, point.speed, point.loss, point.error) for point in found] == [
        ("off", 1.0, 0.0, 0.0), ("balanced", 1.3, 1.0, 0.1), ("fast", 1.5, 4.0, 0.4),
    ]  # fmt: skip


def test_characters_show_the_faster_to_the_right_and_the_worse_above() -> None:
    lines = sparsity_picture.in_text(rows()).splitlines()
    places = {
        letter: (y, line.index(letter, line.index("|")))
        for y, line in enumerate(lines)
        for letter in "abc"
        if "|" in line and letter in line[line.index("|") :]
    }
    assert places["a"][1] < places["b"][1] < places["c"][1]
    assert places["a"][0] > places["b"][0] > places["c"][0]
    assert lines[-1] == "  c fast: 1.50x, 4 ± 0.4 %"


def test_nothing_is_drawn_without_both_figures() -> None:
    assert sparsity_picture.in_text([]) == ""
    assert sparsity_picture.in_text([row for row in rows() if row["metric"] == "decode"]) == ""
