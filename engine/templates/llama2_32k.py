"""Llama-2-7B-32K-Instruct's form: `[INST]` and `[/INST]` on lines of their own."""

from __future__ import annotations

from typing import Any

from engine.templates import _inst
from engine.templates._messages import Messages

name = "llama2_32k"
markers = _inst.markers
stop_strings = ("\n\n[INST]", "[INST]", "[/INST]")
writes_bos = False


def render(
    messages: Messages,
    *,
    add_generation_prompt: bool = True,
    continue_final: bool = False,
    **variables: Any,
) -> str:
    """The system text, which the model was trained without, stands above the first question."""
    system, contents = _inst.taking_turns(messages, continue_final=continue_final)
    if system is not None:
        contents[0] = f"{system}\n\n{contents[0]}"
    parts = [
        f"{content}\n\n" if index % 2 else f"[INST]\n{content}\n[/INST]\n\n"
        for index, content in enumerate(contents)
    ]
    text = "".join(parts)
    return text.removesuffix("\n\n") if continue_final else text
