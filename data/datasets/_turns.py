"""What datasets share: fields of a record, and a conversation that can be trained on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from . import Row, Turn

# an even pair of these is one letter; a lone one cannot be written as UTF-8, nor tokenized
_SURROGATES = ("\ud800", "\udfff")


def text_field(record: Mapping[str, Any], name: str, *, required: bool = True) -> str:
    """The text in the field, without space around it; "" for a missing one that may be missing."""
    value = record.get(name)
    if value is None and not required:
        return ""
    if name not in record:
        raise ValueError(f"the field {name!r} is missing; its fields are {_names(record)}")
    text = checked_text(value, f"the field {name!r}").strip()
    if required and not text:
        raise ValueError(f"the field {name!r} is empty")
    return text


def checked_text(value: Any, what: str) -> str:
    """`value`, when it is text that can be tokenized; ValueError names `what`."""
    if not isinstance(value, str):
        raise ValueError(f"{what} is {_json_type(value)}, text is expected")
    if any(_SURROGATES[0] <= letter <= _SURROGATES[1] for letter in value):
        raise ValueError(f"{what} has half of a surrogate pair (\\ud800 to \\udfff) in it")
    return value


def conversation(turns: Iterable[Turn], origin: str, kind: str) -> Row:
    """The row of these turns.

    Neighbours of the same role become one turn, because many chat templates demand that roles
    alternate; a question without an answer at the end goes away. ValueError when an answer is
    empty or there is none to train on.
    """
    merged: list[Turn] = []
    for turn in turns:
        if turn.role == "assistant" and not turn.content:
            raise ValueError(f"turn {len(merged) + 1}: the answer is empty")
        last = merged[-1] if merged else None
        if last and (last.role, last.trained) == (turn.role, turn.trained):
            content = "\n\n".join(filter(None, (last.content, turn.content)))
            merged[-1] = turn._replace(content=content)
        else:
            merged.append(turn)
    while merged and merged[-1].role != "assistant":
        merged.pop()
    merged = [turn for turn in merged if turn.content]
    if not merged:
        raise ValueError("there is no answer in it")
    if not any(turn.trained for turn in merged):
        raise ValueError("none of its answers is to be trained on")
    return Row(tuple(merged), None, origin, kind)


def _names(record: Mapping[str, Any]) -> str:
    shown = [repr(name)[:40] for name in list(record)[:8]]
    return ", ".join(shown + ["…"] * (len(record) > 8)) or "none"


def _json_type(value: Any) -> str:
    kinds = (
        (bool, "true or false"),
        (int | float, "a number"),
        (list, "a list"),
        (dict, "an object"),
    )
    return next((name for kind, name in kinds if isinstance(value, kind)), "null")
