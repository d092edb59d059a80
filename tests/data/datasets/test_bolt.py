from __future__ import annotations

import pytest

from data.datasets import Row, Turn, bolt


@pytest.mark.parametrize(
    ("given", "question"),
    [
        ({"prompt": "Answer:", "context": "It rains."}, "Answer:\n\nIt rains."),
        ({"prompt": "Answer:"}, "Answer:"),
        ({"context": " It rains.\n"}, "It rains."),
        ({"prompt": "", "context": "It rains."}, "It rains."),
        ({"prompt": None, "context": "It rains."}, "It rains."),
    ],
)
def test_prompt_and_context_are_asked_and_the_target_is_learned(
    given: dict[str, str], question: str
) -> None:
    row = bolt.row({**given, "target": "Take a coat. "}, "b.jsonl:3")
    learned = Turn("assistant", "Take a coat.", True)
    assert row == Row((Turn("user", question, False), learned), None, "b.jsonl:3", "bolt")


def test_a_target_alone_is_a_plain_text() -> None:
    assert bolt.row({"target": "A text."}, "b.jsonl:1") == Row((), "A text.", "b.jsonl:1", "bolt")


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"prompt": "a"}, "the field 'target' is missing; its fields are 'prompt'"),
        ({"target": ""}, "the field 'target' is empty"),
        ({"target": 3}, "the field 'target' is a number, text is expected"),
        ({"target": "a", "context": ["b"]}, "the field 'context' is a list, text is expected"),
        ({}, "its fields are none"),
    ],
)
def test_what_is_no_row_says_why(record: dict[str, object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        bolt.row(record, "b.jsonl:1")
