from __future__ import annotations

import pytest

from retrieval.matching import contains, contains_any, tokens


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("July 5, 2018", ["july", "5", ",", "2018"]),
        ("Victoria's", ["victoria", "'", "s"]),
        ("a_b\u200b c\x00\n", ["a", "_", "b", "c"]),
        ("Ⅳ ½ 10³", ["ⅳ", "½", "10³"]),
        ("हिन्दी 日本語", ["हिन्दी", "日本語"]),
        ("", []),
    ],
)
def test_tokens_are_words_and_single_signs_in_lower_case(text: str, expected: list[str]) -> None:
    assert tokens(text) == expected


@pytest.mark.parametrize(
    ("text", "answers", "expected"),
    [
        ("It was on July 5, 2018.", ["July 5 , 2018"], True),
        ("the party", ["art"], False),
        ("The Art of War", ["art of war"], True),
        ("R\u00f6ntgen", ["Ro\u0308ntgen"], True),
        ("Rontgen", ["Röntgen"], False),
        ("one two one three", ["one three"], True),
        ("one", ["one two"], False),
        ("nothing", ["", " "], False),
        ("either or", ["neither", "or"], True),
        ("", ["x"], False),
    ],
)
def test_an_answer_is_contained_when_its_tokens_follow_each_other(
    text: str, answers: list[str], expected: bool
) -> None:
    assert contains_any(text, answers) is expected


def test_an_answer_at_either_end_is_found() -> None:
    assert contains(["a", "b", "c"], ["a"]) and contains(["a", "b", "c"], ["b", "c"])
