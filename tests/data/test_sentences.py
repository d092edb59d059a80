from __future__ import annotations

import random

import pytest

from data.sentences import sentences


def split(text: str) -> list[str]:
    return [text[start:end] for start, end in sentences(text)]


@pytest.mark.parametrize(
    "text",
    [
        "One. | Two! | Three? | Four",
        "Dr. Smith met Mrs. Jones. | They spoke.",
        "J. R. R. Tolkien wrote it. | He was born on Jan. 3.",
        "The U.S. Army came. | It left the U.S. | The end.",
        "At 3.30 p.m. he left. | It was 5 p.m. | He slept.",
        "Pi is 3.14159. | Then 2.71.",
        "See e.g. Fig. 3 and pp. 4-5. | Also no. 7, i.e. Venus.",
        "The answer is no. | Go home.",
        "Acme Inc. | The firm sold Beta Ltd. shares.",
        "Smith et al. found it. | Others did not.",
        "Visit example.org or read a.txt. | Done.",
        '"Is it so?" she asked. | "Yes." | He left.',
        "“It is.” | ‘No!’ he said. | (It was.) | Then she went.",
        "Wait... what? | Well… | Then it ended.",
        "Really?! | Yes!!! | Good.",
        "It ended in 1905.[12] | Then came another.[3][4] | Last.",
        "He has a Ph.D. in law. | She has none.",
        "It was so in 1999. | Later it changed.",
        "He wrote it with A. Einstein. | Plan B. | Then they left.",
        "这是第一句。 | 这是第二句！ | “真的吗？” | 他走了。",
        "東京は首都です。 | 大きい！ | 値は３．１４です。",
        "Это Москва. | Столица России. | Да!",
        "यह है। | वह था।",
        "هل هذا صحيح؟ | نعم.",
    ],
)
def test_sentences_end_where_they_do(text: str) -> None:
    wanted = text.split(" | ")
    gap = "" if wanted[0][-1] in "。！？" else " "
    assert split(gap.join(wanted)) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("One line\nand its other half.\nNext.", ["One line\nand its other half.", "Next."]),
        ("No stop\n\nA new paragraph", ["No stop", "A new paragraph"]),
        ("No stop\n \t\nA new one", ["No stop", "A new one"]),
        ("- first\n- second\n  goes on\n* third", ["- first", "- second\n  goes on", "* third"]),
        ("1. First\n2. Second. Third.\n(3) x", ["1. First", "2. Second.", "Third.", "(3) x"]),
        ("# Heading\nText here.", ["# Heading", "Text here."]),
        ("Heading\n=======\nText here.", ["Heading\n=======", "Text here."]),
        ("|a|b|\n|-|-|\n|1|2|\nafter", ["|a|b|", "|-|-|", "|1|2|\nafter"]),
        (
            "Code:\n```\nx = 1\ny = 2\n```\nAfter.",
            ["Code:", "```", "x = 1\ny = 2", "```", "After."],
        ),
    ],
)
def test_blank_lines_items_headings_and_rows_end_sentences(text: str, wanted: list[str]) -> None:
    assert split(text) == wanted


def test_only_the_part_between_start_and_end_is_looked_at() -> None:
    text = "One. Two. Three. Four."
    assert [text[a:b] for a, b in sentences(text, 5, 15)] == ["Two.", "Three"]
    assert sentences(text, 5, 5) == []


@pytest.mark.parametrize("text", ["", " ", "\n\n\t \u3000"])
def test_blank_text_has_no_sentences(text: str) -> None:
    assert sentences(text) == []


PIECES = (
    "a A é 中 . .. ... … ! ? 。 ！ ． \" ' ” ) ] » ( [ “ \n \n\n \t \u3000 \x1c - * # 1 12 3. "
    "Mr. U.S. e.g. [1] ``` | === word Word The - 。」"
).split(" ")


@pytest.mark.parametrize("seed", range(40))
def test_random_text_is_covered_in_order_without_outer_white_space(seed: int) -> None:
    chance = random.Random(seed)
    text = "".join(
        chance.choice(PIECES) + chance.choice(("", " ", "")) for _ in range(chance.randrange(400))
    )
    last = 0
    for start, end in sentences(text):
        assert start >= last
        assert not text[last:start].strip()
        assert text[start:end] == text[start:end].strip() != ""
        last = end
    assert not text[last:].strip()


class Counted(str):
    """A text that counts the characters that are cut out of it."""

    n_cut = 0

    def __getitem__(self, key: object) -> str:
        piece = super().__getitem__(key)  # type: ignore[index]
        Counted.n_cut += len(piece)
        return piece


@pytest.mark.parametrize(
    "unit", [". ", "a. ", '."', "(.", ".[1", "\n ", "- \n", "-", "x", "...", "。"]
)
def test_work_grows_with_the_text_and_not_with_its_square(unit: str) -> None:
    work = []
    for n in (2_000, 8_000):
        Counted.n_cut = 0
        sentences(Counted(unit * n))
        work.append(Counted.n_cut)
    assert work[1] <= 5 * max(work[0], 1_000)
