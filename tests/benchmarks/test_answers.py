from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks import answers
from benchmarks.answers import Answered, judged, ratio_interval, rows_of
from retrieval.evaluation import Question

QUESTION = Question("When?", ("July 5 , 2018", "in 2018"))


def shown(*texts: str) -> Any:
    return SimpleNamespace(sources=[SimpleNamespace(text=text) for text in texts])


@pytest.mark.parametrize(
    ("text", "is_right", "is_exact"),
    [
        ("It was on July 5, 2018, in Rome.", True, False),
        ("July 5, 2018.", True, True),
        ("In 2018!", True, True),
        ("In 2017.", False, False),
        ("", False, False),
    ],
)
def test_an_answer_is_right_when_it_is_or_contains_a_known_one(
    text: str, is_right: bool, is_exact: bool
) -> None:
    found = judged(QUESTION, text, None, 7)
    assert found == Answered(is_right, is_exact, text, False, 7)


def test_passages_that_hold_an_answer_are_noticed() -> None:
    assert judged(QUESTION, "", shown("no", "It was in 2018."), 0).is_shown
    assert not judged(QUESTION, "in 2018", shown("no"), 0).is_shown


def answered(is_right: bool, is_shown: bool = False) -> Answered:
    return Answered(is_right, False, "ten signs.", is_shown, 5)


def test_rows_hold_both_sides_the_ratio_and_what_the_passages_had() -> None:
    without = [answered(i < 20) for i in range(100)]
    with_ = [answered(i < 50, is_shown=i < 60) for i in range(100)]
    rows = {row.metric: row.as_json() for row in rows_of(without, with_)}
    right = rows["right"]
    assert (right["ours"], right["peer"], right["ratio"]) == (0.5, 0.2, 2.5)
    assert right["ratio_low"] < 2.5 < right["ratio_high"]
    assert right["difference_low"] > 0
    assert rows["exact"]["ratio"] is None
    assert rows["only the passages"]["ours"] == 0.6
    assert rows["right where a passage has it"]["ours"] == pytest.approx(50 / 60, abs=1e-3)
    assert rows["... has not"]["ours"] == 0
    assert rows["answer"]["ours"] == 10 and rows["prompt"]["unit"] == "tokens"


def test_a_ratio_to_nothing_has_no_interval() -> None:
    assert ratio_interval(np.ones(5), np.zeros(5)) == (None, None)
    assert ratio_interval(np.ones(50), np.ones(50)) == (1, 1)


def test_a_question_is_asked_alone_with_what_the_base_finds() -> None:
    """With the conversation that the shell has, but a model that only repeats."""
    asked: list[Any] = []

    class Chat:
        settings = SimpleNamespace(k=3, w=5, w_th=0.5, search_mode="hybrid")

        def replace_all(self, exchanges: list[Any]) -> None:
            asked.append(exchanges)

        def turn(self, text: str, evidence: Any) -> Any:
            asked.append((text, evidence))
            return SimpleNamespace(
                steps=lambda cancel: iter("ab"), text=" in 2018 ", evidence=evidence, ids=[1, 2]
            )

    chat: Any = Chat()
    assert answers.ask(chat, None, QUESTION) == Answered(True, True, "in 2018", False, 2)
    assert asked == [[], ("When?", None)]
