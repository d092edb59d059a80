"""OpenChatKit's `<human>:` and `<bot>:` lines: Pythia-Chat, GPT-NeoXT-Chat, RedPajama-Chat."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from engine.templates._labelled import render_labelled
from engine.templates._messages import Messages

name = "human_bot"
markers = ("<human>:", "<bot>:")
# with the newline, so that it is not shown when the model ends its turn by writing the next
stop_strings = ("\n<human>:", "\n<bot>:", "<human>:", "<bot>:")
writes_bos = False


def render(
    messages: Messages,
    *,
    add_generation_prompt: bool = True,
    continue_final: bool = False,
    started_at: datetime | None = None,
    **variables: Any,
) -> str:
    """The system text, a blank line, then the turns.

    started_at  writes OpenChatKit's two lines of date and time first, byte for byte; it kept the
                time at which the conversation began
    """
    labels = {"user": "<human>:", "assistant": "<bot>:"}
    turns = render_labelled(labels, messages, add_generation_prompt, continue_final)
    if started_at is None:
        return turns
    # %p beside a 24-hour clock is upstream's, and the trained models saw it
    return started_at.strftime("Current Date: %Y-%m-%d\nCurrent Time: %H:%M:%S %p %Z\n\n") + turns
