"""Plain text, {"text": …} without marks of turns, or a passage of a text file: trained whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import Row, oig
from ._turns import text_field


def recognises(record: Mapping[str, Any]) -> bool:
    return isinstance(record.get("text"), str) and not oig.recognises(record)


def row(record: Mapping[str, Any], origin: str) -> Row:
    return Row((), text_field(record, "text"), origin, "text")
