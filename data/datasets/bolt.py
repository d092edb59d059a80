"""BOLT's rows, {"prompt": …, "context": …, "target": …}: the target is learned, the others are not.

Prompt and context, in this order and both optional, are what the user says; a target alone is a
plain text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import Row, Turn
from ._turns import conversation, text_field


def recognises(record: Mapping[str, Any]) -> bool:
    # a target beside other fields only ("source", "input") is a row of something else
    is_known = "prompt" in record or "context" in record or len(record) == 1
    return is_known and isinstance(record.get("target"), str)


def row(record: Mapping[str, Any], origin: str) -> Row:
    target = text_field(record, "target")
    asked = [text_field(record, name, required=False) for name in ("prompt", "context")]
    question = "\n\n".join(filter(None, asked))
    if not question:
        return Row((), target, origin, "bolt")
    turns = (Turn("user", question, False), Turn("assistant", target, True))
    return conversation(turns, origin, "bolt")
