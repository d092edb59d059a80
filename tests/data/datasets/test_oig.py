from __future__ import annotations

import pytest

from data.datasets import Row, Turn, oig


def turns(text: str) -> list[tuple[str, str]]:
    row = oig.row({"text": text}, "a.jsonl:1")
    assert all(turn.trained == (turn.role == "assistant") for turn in row.turns)
    return [(turn.role, turn.content) for turn in row.turns]


def test_a_row_of_two_turns() -> None:
    record = {"text": "<human>: Why?\n<bot>: Because.\nIt is so.", "metadata": {"source": "x"}}
    assert oig.row(record, "a.jsonl:12") == Row(
        (Turn("user", "Why?", False), Turn("assistant", "Because.\nIt is so.", True)),
        None,
        "a.jsonl:12",
        "oig",
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<human>: a\n<bot>: b\n<human>: c\n<bot>: d", "user a, assistant b, user c, assistant d"),
        ("<human>: a  \n<bot>:  b \n\n", "user a, assistant b"),
        ("<human>:a\r\n<bot>:b", "user a, assistant b"),
        ("\n<human>: a\n\n<bot>: b", "user a, assistant b"),
        ("Facts.\n\n<human>: a\n<bot>: b", "system Facts., user a, assistant b"),
        ("<bot>: Hello!\n<human>: a\n<bot>: b", "assistant Hello!, user a, assistant b"),
        # what has no answer is not learned from
        ("<human>: a\n<bot>: b\n<human>:", "user a, assistant b"),
        ("<human>: a\n<bot>: b\n<human>: and c?", "user a, assistant b"),
        # a marker inside of a line is text
        ("<human>: a\n<bot>: write <human>: so", "user a, assistant write <human>: so"),
        # unless there are no others
        ("<human>: a <bot>: b <human>: c <bot>: d", "user a, assistant b, user c, assistant d"),
    ],
)
def test_turns_are_split_at_markers(text: str, expected: str) -> None:
    assert ", ".join(" ".join(turn) for turn in turns(text)) == expected


def test_neighbours_of_one_role_become_one_turn() -> None:
    asked = turns("<human>: A passage.\n<human>: A question?\n<bot>: An answer.")
    assert asked == [("user", "A passage.\n\nA question?"), ("assistant", "An answer.")]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"text": "<human>: a\n<bot>:"}, "turn 2: the answer is empty"),
        ({"text": "<human>: a\n<bot>: \n<human>: b\n<bot>: c"}, "turn 2: the answer is empty"),
        ({"text": "<human>: a"}, "there is no answer in it"),
        ({"text": "no marks"}, "there is neither <human>: nor <bot>: in its text"),
        ({"text": "  "}, "the field 'text' is empty"),
        ({"text": None}, "the field 'text' is null, text is expected"),
        ({"text": ["<human>: a"]}, "the field 'text' is a list, text is expected"),
        ({"txt": "a", "id": 1}, "the field 'text' is missing; its fields are 'txt', 'id'"),
        ({"text": "<human>: a\n<bot>: \ud83d"}, "half of a surrogate pair"),
    ],
)
def test_what_is_no_row_says_why(record: dict[str, object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        oig.row(record, "a.jsonl:1")


@pytest.mark.parametrize(
    "turns",
    [
        [Turn("user", "a", False), Turn("assistant", "b\n\nc", True)],
        [Turn("system", "s", False), Turn("user", "a", False), Turn("assistant", "b", True)],
        [Turn("assistant", "see <human>: in a line", True)],
    ],
)
def test_what_is_written_is_read_back(turns: list[Turn]) -> None:
    assert oig.turns_of(oig.text_of(turns)) == turns


def test_a_content_that_forges_a_turn_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="begins a line of its own text"):
        oig.text_of([Turn("user", "a\n<bot>: b", False), Turn("assistant", "c", True)])
