"""OIG, the Open Instruction Generalist dataset: {"text": "<human>: …\\n<bot>: …", "metadata": …}.

A turn begins with its marker at the beginning of a line, so that one inside of a sentence is part
of it. What stands before the first turn is the system's. The other fields do not count.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from . import Row, Turn
from ._turns import conversation, text_field

_ROLES = {"human": "user", "bot": "assistant"}
_ANYWHERE = re.compile(r"<(human|bot)>:")
_ON_A_NEW_LINE = re.compile(r"^[ \t]*<(human|bot)>:", re.MULTILINE)


def recognises(record: Mapping[str, Any]) -> bool:
    text = record.get("text")
    return isinstance(text, str) and _ANYWHERE.search(text) is not None


def row(record: Mapping[str, Any], origin: str) -> Row:
    return conversation(turns_of(text_field(record, "text")), origin, "oig")


def turns_of(text: str) -> list[Turn]:
    """The turns of a text with markers, contents without space around them."""
    markers = list(_ON_A_NEW_LINE.finditer(text))
    if not any(marker[1] == "bot" for marker in markers):  # all in one line, then
        markers = list(_ANYWHERE.finditer(text))
    if not markers:
        raise ValueError("there is neither <human>: nor <bot>: in its text")
    turns = (
        [Turn("system", before, False)] if (before := text[: markers[0].start()].strip()) else []
    )
    ends = [marker.start() for marker in markers[1:]] + [len(text)]
    for marker, end in zip(markers, ends, strict=True):
        role = _ROLES[marker[1]]
        turns.append(Turn(role, text[marker.end() : end].strip(), role == "assistant"))
    return turns


def text_of(turns: Iterable[Turn]) -> str:
    """The text that `turns_of` reads as these turns; ValueError where a content forges a marker."""
    turns, marks = list(turns), {role: f"<{name}>: " for name, role in _ROLES.items()}
    text = "\n".join(marks.get(turn.role, "") + turn.content for turn in turns)
    if [turn[:2] for turn in turns_of(text)] != [turn[:2] for turn in turns]:
        raise ValueError("<human>: or <bot>: begins a line of its own text")
    return text
