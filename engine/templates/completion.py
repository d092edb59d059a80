"""No form at all, for base models: the text goes on where it ends."""

from __future__ import annotations

from typing import Any

from engine.templates._messages import Messages, checked

name = "completion"
markers: tuple[str, ...] = ()
stop_strings: tuple[str, ...] = ()
writes_bos = False
continues = True  # an answer goes on in the middle of a text: its first blank is part of it


def render(
    messages: Messages,
    *,
    add_generation_prompt: bool = True,
    continue_final: bool = False,
    **variables: Any,
) -> str:
    """What was written by either side, one behind the other; what is typed begins a new line.

    The system text comes first, a blank line after it.
    """
    text = ""
    for message in checked(messages, continue_final=continue_final):
        if message["role"] == "assistant":
            text += message["content"]
        else:
            text += "\n" if text and not text.endswith("\n") else ""
            text += message["content"] + ("\n\n" if message["role"] == "system" else "")
    return text
