"""Turns written as lines that begin with a label, one newline after each turn."""

from __future__ import annotations

from collections.abc import Mapping

from engine.templates._messages import Messages, checked


def render_labelled(
    labels: Mapping[str, str],
    messages: Messages,
    add_generation_prompt: bool,
    continue_final: bool,
) -> str:
    """`{label} {content}` per turn; system text stands without a label, a blank line after it.

    labels  role: label, colon included; ValueError for a role that is neither there nor "system"
    """
    parts = []
    for number, message in enumerate(checked(messages, continue_final=continue_final), start=1):
        role, content = message["role"], message["content"]
        if role == "system":
            parts.append(f"{content}\n\n")
        elif role in labels:
            parts.append(f"{labels[role]} {content}\n")
        else:
            known = ", ".join(["system", *labels])
            raise ValueError(f"message {number} has the role {role!r}; this template has {known}")
    if continue_final:
        parts[-1] = parts[-1].removesuffix("\n")
    elif add_generation_prompt:
        # no space after the colon: the model's first token brings it
        parts.append(labels["assistant"])
    return "".join(parts)
