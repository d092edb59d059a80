"""Llama 2's form: `[INST] question [/INST] answer`, the system text in `<<SYS>>`."""

from __future__ import annotations

from typing import Any

from engine.templates import _inst
from engine.templates._messages import Messages

name = "llama2"
markers = _inst.markers
stop_strings = ("[INST]", "[/INST]")
writes_bos = False
after_answer = " </s>"


def render(
    messages: Messages,
    *,
    add_generation_prompt: bool = True,
    continue_final: bool = False,
    **variables: Any,
) -> str:
    """Every answered question is a text of its own, between BOS (the first is not written) and EOS.

    The prompt ends with the question, whether or not a generation prompt is asked for.
    """
    system, contents = _inst.taking_turns(messages, continue_final=continue_final)
    if system is not None:
        contents[0] = f"<<SYS>>\n{system}\n<</SYS>>\n\n{contents[0]}"
    parts = []
    for index, content in enumerate(contents):
        if index % 2:
            parts.append(f" {content}{after_answer}")
        else:
            parts.append(f"{'<s>' if index else ''}[INST] {content} [/INST]")
    text = "".join(parts)
    return text.removesuffix(after_answer) if continue_final else text
