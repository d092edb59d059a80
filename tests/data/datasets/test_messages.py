from __future__ import annotations

from typing import Any

import pytest

from data.datasets import Turn, messages

ASKED = Turn("user", "Hi", False)
ANSWERED = Turn("assistant", "Hello", True)


def openai(*pairs: tuple[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in pairs]}


def test_messages_of_role_and_content() -> None:
    row = messages.row(
        openai(("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello")), "m:1"
    )
    assert row.turns == (Turn("system", "Be brief.", False), ASKED, ANSWERED)
    assert (row.text, row.origin, row.kind) == (None, "m:1", "messages")


def test_conversations_of_from_and_value() -> None:
    pairs = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
    assert messages.row({"id": "1", "conversations": pairs}, "m:1").turns == (ASKED, ANSWERED)
    with_system = messages.row({"system": "Be brief.", "conversations": pairs}, "m:1")
    assert with_system.turns[0] == Turn("system", "Be brief.", False)


def test_a_content_of_parts_is_joined() -> None:
    parts = [{"type": "text", "text": "Hello"}, {"type": "text", "text": "there"}]
    assert messages.row(openai(("assistant", parts)), "m:1").turns[0].content == "Hello\nthere"


def test_an_answer_of_weight_0_is_not_learned() -> None:
    record = openai(
        ("user", "Hi"), ("assistant", "Go away"), ("user", "Hi"), ("assistant", "Hello")
    )
    record["messages"][1]["weight"] = 0
    assert messages.row(record, "m:1").turns == (
        ASKED,
        Turn("assistant", "Go away", False),
        ASKED,
        ANSWERED,
    )
    record["messages"][3]["weight"] = 0
    with pytest.raises(ValueError, match="none of its answers is to be trained on"):
        messages.row(record, "m:1")


def test_a_question_at_the_end_and_an_empty_system_text_go_away() -> None:
    record = openai(("system", ""), ("user", "Hi"), ("assistant", "Hello"), ("user", "And?"))
    assert messages.row(record, "m:1").turns == (ASKED, ANSWERED)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (openai(("user", "Hi")), "there is no answer in it"),
        (openai(("user", "Hi"), ("assistant", "")), "turn 2: the answer is empty"),
        (openai(("user", "Hi"), ("tool", "{}")), "message 2 has the role 'tool'; known are system"),
        (openai(("user", "Hi"), ("assistant", None)), "message 2 is null, text is expected"),
        (openai(("user", [{"type": "image"}])), "message 1 has a part that is no text"),
        ({"messages": ["Hi"]}, "message 1 is no object with 'role' and 'content'"),
        ({"messages": [{"content": "Hi"}]}, "message 1 has the role None"),
        ({"messages": []}, "there is no list 'messages' or 'conversations' in it"),
    ],
)
def test_what_is_no_row_says_why(record: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        messages.row(record, "m:1")


def test_a_row_that_was_rated_bad_is_not_learned() -> None:
    record = openai(("user", "Hi"), ("assistant", "Hello"))
    assert messages.row(record | {"rating": "good"}, "m:1").turns == (ASKED, ANSWERED)
    with pytest.raises(ValueError, match="it was rated bad, so it is not learned"):
        messages.row(record | {"rating": "bad"}, "m:1")
