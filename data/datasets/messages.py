"""Chats as lists: {"messages": [{"role", "content"}]}, or ShareGPT's {"conversations": [{"from",
"value"}]}.

An answer with "weight": 0 is read and not learned, as in OpenAI's files; a row with "rating":
"bad", which is what /bad in the shell writes, is not learned at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import LeftOut, Row, Turn
from ._turns import checked_text, conversation, text_field

_LISTS = ("messages", "conversations", "conversation")
_ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bot", "model", "bing", "bard"), "assistant"),
}


def recognises(record: Mapping[str, Any]) -> bool:
    messages = _messages(record)
    return messages is not None and all(
        isinstance(m, Mapping) and ("role" in m or "from" in m) for m in messages
    )


def row(record: Mapping[str, Any], origin: str) -> Row:
    if record.get("rating") == "bad":
        raise LeftOut("it was rated bad, so it is not learned")
    messages = _messages(record)
    if messages is None:
        raise ValueError("there is no list 'messages' or 'conversations' in it")
    turns = [_turn(message, number) for number, message in enumerate(messages, 1)]
    if isinstance(record.get("system"), str) and not any(t.role == "system" for t in turns):
        turns.insert(0, Turn("system", text_field(record, "system", required=False), False))
    return conversation(turns, origin, "messages")


def _messages(record: Mapping[str, Any]) -> list[Any] | None:
    found = (record.get(name) for name in _LISTS)
    return next((value for value in found if isinstance(value, list) and value), None)


def _turn(message: Any, number: int) -> Turn:
    if not isinstance(message, Mapping):
        raise ValueError(f"message {number} is no object with 'role' and 'content'")
    name = message.get("role", message.get("from"))
    role = _ROLES.get(name.casefold()) if isinstance(name, str) else None
    if role is None:
        known = "system, user (human) and assistant (gpt)"
        raise ValueError(f"message {number} has the role {name!r}; known are {known}")
    content = _content(message.get("content", message.get("value")), number)
    return Turn(role, content, role == "assistant" and message.get("weight") != 0)


def _content(value: Any, number: int) -> str:
    """The text of a message: itself, or its parts [{"type": "text", "text": …}]."""
    if isinstance(value, list):
        for part in value:
            if not isinstance(part, Mapping) or part.get("type") != "text":
                raise ValueError(f"message {number} has a part that is no text")
        return "\n".join(checked_text(p.get("text"), f"message {number}") for p in value).strip()
    return checked_text(value, f"message {number}").strip()
