"""Alpaca's rows: {"instruction": …, "input": …, "output": …}, the input optional.

The user says the instruction, then, after a blank line, the input. "system" and "history", pairs of
earlier questions and answers, are LLaMA-Factory's additions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import Row, Turn
from ._turns import checked_text, conversation, text_field


def recognises(record: Mapping[str, Any]) -> bool:
    return all(isinstance(record.get(name), str) for name in ("instruction", "output"))


def row(record: Mapping[str, Any], origin: str) -> Row:
    asked = [text_field(record, "instruction"), text_field(record, "input", required=False)]
    turns = [Turn("system", text_field(record, "system", required=False), False)]
    for question, answer in _history(record.get("history")):
        turns += [Turn("user", question, False), Turn("assistant", answer, True)]
    turns.append(Turn("user", "\n\n".join(filter(None, asked)), False))
    turns.append(Turn("assistant", text_field(record, "output"), True))
    return conversation(turns, origin, "alpaca")


def _history(value: Any) -> list[tuple[str, str]]:
    if value is None:
        return []
    if not isinstance(value, list) or any(not isinstance(p, list) or len(p) != 2 for p in value):
        raise ValueError("the field 'history' is no list of pairs [question, answer]")
    whats = ("a question of 'history'", "an answer of 'history'")
    pairs = [[checked_text(t, w).strip() for t, w in zip(p, whats, strict=True)] for p in value]
    return [(question, answer) for question, answer in pairs]
