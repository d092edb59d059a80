"""What a conversation is, and the one check of it that all templates share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Message = Mapping[str, Any]  # {"role": "system" | "user" | "assistant", "content": str}
Messages = Sequence[Message]


def checked(messages: Messages, *, continue_final: bool = False) -> list[dict[str, Any]]:
    """The messages as fresh dicts. ValueError for an empty conversation, missing parts, or no
    assistant's message at the end where `continue_final` asks for one."""
    if not messages:
        raise ValueError("the conversation is empty; a chat template needs at least one message")
    for number, message in enumerate(messages, start=1):
        for key in ("role", "content"):
            if not isinstance(message.get(key), str):
                kind = type(message.get(key)).__name__
                raise ValueError(f"message {number}: {key!r} is {kind}, text is expected")
    if continue_final and messages[-1]["role"] != "assistant":
        role = messages[-1]["role"]
        raise ValueError(f"only an assistant's message can be continued; the last one is {role}'s")
    return [dict(message) for message in messages]
