from __future__ import annotations

import pytest

from data.datasets import Turn, alpaca


def test_the_input_follows_the_instruction() -> None:
    row = alpaca.row({"instruction": "Add.", "input": "1 and 2", "output": "3"}, "a.json:1")
    assert row.turns == (Turn("user", "Add.\n\n1 and 2", False), Turn("assistant", "3", True))
    assert (row.text, row.origin, row.kind) == (None, "a.json:1", "alpaca")


@pytest.mark.parametrize("given", [{}, {"input": ""}, {"input": None}])
def test_the_input_may_be_missing(given: dict[str, str | None]) -> None:
    row = alpaca.row({"instruction": "Greet.", "output": "Hi!", **given}, "a.json:1")
    assert row.turns == (Turn("user", "Greet.", False), Turn("assistant", "Hi!", True))


def test_system_and_history_come_first() -> None:
    record = {"instruction": "b", "output": "B", "system": "s", "history": [["a", "A"]]}
    found = [(turn.role, turn.content) for turn in alpaca.row(record, "a.json:1").turns]
    assert found == [
        ("system", "s"),
        ("user", "a"),
        ("assistant", "A"),
        ("user", "b"),
        ("assistant", "B"),
    ]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"instruction": "a", "output": ""}, "the field 'output' is empty"),
        ({"instruction": "", "output": "a"}, "the field 'instruction' is empty"),
        ({"output": "a"}, "the field 'instruction' is missing"),
        ({"instruction": "a", "output": "b", "history": [["c"]]}, "'history' is no list of pairs"),
        ({"instruction": "a", "output": "b", "history": [["c", 1]]}, "'history' is a number"),
    ],
)
def test_what_is_no_row_says_why(record: dict[str, object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        alpaca.row(record, "a.json:1")
