"""Questions in [INST] … [/INST], which take turns with answers."""

from __future__ import annotations

from engine.templates._messages import Messages, checked

markers = ("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>")


def taking_turns(messages: Messages, *, continue_final: bool) -> tuple[str | None, list[str]]:
    """The system text, if any, and the contents: a question, its answer, a question …

    ValueError for a system text that is not the first message, and for roles out of turn.
    """
    chat = checked(messages, continue_final=continue_final)
    system = chat.pop(0)["content"] if chat[0]["role"] == "system" else None
    first = 1 if system is None else 2
    for index, message in enumerate(chat):
        expected = "assistant" if index % 2 else "user"
        if message["role"] != expected:
            raise ValueError(
                f"message {first + index} has the role {message['role']!r}; user and assistant "
                f"take turns in this template, and it is {expected}'s"
            )
    if not chat:
        raise ValueError("a system text alone is no conversation; this template needs a question")
    return system, [message["content"] for message in chat]
