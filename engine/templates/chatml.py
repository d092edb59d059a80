"""ChatML: `<|im_start|>role`, the content, `<|im_end|>`."""

from __future__ import annotations

from typing import Any

from engine.templates._messages import Messages, checked

name = "chatml"
markers = ("<|im_start|>", "<|im_end|>")
stop_strings = markers
writes_bos = False


def render(
    messages: Messages,
    *,
    add_generation_prompt: bool = True,
    continue_final: bool = False,
    **variables: Any,
) -> str:
    """Every role is written as it is named; no system prompt is made up."""
    turns = [
        f"<|im_start|>{message['role']}\n{message['content']}<|im_end|>\n"
        for message in checked(messages, continue_final=continue_final)
    ]
    if continue_final:
        turns[-1] = turns[-1].removesuffix("<|im_end|>\n")
    elif add_generation_prompt:
        turns.append("<|im_start|>assistant\n")
    return "".join(turns)
