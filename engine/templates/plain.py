"""`User:` and `Assistant:` lines, for base models that were trained on no chat format."""

from __future__ import annotations

from typing import Any

from engine.templates._labelled import render_labelled
from engine.templates._messages import Messages

name = "plain"
markers = ("User:", "Assistant:")
stop_strings = ("\nUser:", "\nAssistant:")
writes_bos = False


def render(
    messages: Messages,
    *,
    add_generation_prompt: bool = True,
    continue_final: bool = False,
    **variables: Any,
) -> str:
    """The system text, a blank line, then the turns."""
    labels = {"user": "User:", "assistant": "Assistant:"}
    return render_labelled(labels, messages, add_generation_prompt, continue_final)
