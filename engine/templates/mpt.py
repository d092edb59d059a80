"""MPT-7B-chat-8k and MPT-30B-chat: ChatML with the system text that they were trained with."""

from __future__ import annotations

from typing import Any

from engine.templates import chatml
from engine.templates._messages import Messages, checked

name = "mpt"
markers, stop_strings, writes_bos = chatml.markers, chatml.stop_strings, chatml.writes_bos
SYSTEM = (
    "A conversation between a user and an LLM-based AI assistant. "
    "The assistant gives helpful and honest answers."
)


def render(
    messages: Messages,
    *,
    add_generation_prompt: bool = True,
    continue_final: bool = False,
    **variables: Any,
) -> str:
    """SYSTEM comes first where the conversation has no system text of its own, which may be ""."""
    chat = checked(messages, continue_final=continue_final)
    if chat[0]["role"] != "system":
        chat.insert(0, {"role": "system", "content": SYSTEM})
    return chatml.render(
        chat, add_generation_prompt=add_generation_prompt, continue_final=continue_final
    )
