from __future__ import annotations

from typing import Any

import pytest

from data.datasets import Row
from data.preparing.oig_moderation import row

QUESTION = """Possible labels:
1. casual
2. needs caution
3. needs intervention
4. possibly needs caution
5. probably needs caution

Input: Hi there
Output:"""


@pytest.mark.parametrize(
    "record",
    [
        {"text": "Input: Hi there\nOutput: casual"},
        {"text": "Hi there ", "label": "casual"},
        {"text": "Hi there", "labels": ["casual"]},
        {"prompt": "Hi there", "metadata": {"safety_label": "casual"}},
        {"text": "<human>: Hi there\n<bot>: casual"},
    ],
)
def test_all_forms_become_the_question_that_the_model_was_asked(record: dict[str, Any]) -> None:
    made = row(record, "a:1")
    assert isinstance(made, Row)
    assert [(turn.content, turn.trained) for turn in made.turns] == [
        (QUESTION, False),
        ("casual", True),
    ]


def test_several_labels_are_one_answer() -> None:
    made = row({"text": "x", "labels": ["needs caution", "hate"]}, "a:1")
    assert made.turns[1].content == "needs caution | hate"


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"text": "Hi"}, "there is no label in it; its fields are 'text'"),
        ({"label": "casual"}, "none of the fields text, prompt, .* is a text"),
        ({"text": " ", "label": "casual"}, "what was said or its label is empty"),
        ({"text": "Hi", "label": [1]}, "there is no label in it"),
    ],
)
def test_without_a_label_it_is_no_row(record: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        row(record, "a:1")
