"""OIG-moderation: what people say, and how much caution it needs.

A row asks as GPT-JT-Moderation was asked, the labels first, and its answer is the label. Its files
have come in several forms: {"text": "Input: …\\nOutput: label"}, OIG's marks, or what was said and
its labels in fields of their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data.catalogue import HubSource
from data.datasets import BadRow, Row, Turn
from data.datasets import oig as dataset

from ._jsonl import rows_of

TITLE = "OIG-moderation, 134,530 utterances with the caution that they need"
LICENCE = "Apache-2.0"
# version 0.2 has the rows of 0.1
SOURCE = HubSource("ontocord/OIG-moderation", patterns=("OIG_safety_v0.2.jsonl",))

LABELS = (
    "casual",
    "needs caution",
    "needs intervention",
    "possibly needs caution",
    "probably needs caution",
)
_HEADER = "\n".join(["Possible labels:", *(f"{n}. {label}" for n, label in enumerate(LABELS, 1))])
_SAID = ("text", "prompt", "input", "user", "utterance")
_LABELLED = ("labels", "label", "safety_label", "safety_labels", "tags", "output")
_INPUT_OUTPUT = re.compile(r"\s*Input:\s*(.*\S)\s*\n\s*Output:\s*(.*)", re.DOTALL)


def rows(found: Sequence[Path], only: Sequence[str]) -> Iterator[Row | BadRow]:
    """A row for each utterance with a label."""
    return rows_of(found, row)


def row(record: Mapping[str, Any], origin: str) -> Row:
    """The question for a label and its answer; ValueError when there is no label to be found."""
    said, label = _parts(record)
    if not said.strip() or not label.strip():
        raise ValueError("what was said or its label is empty")
    question = f"{_HEADER}\n\nInput: {said.strip()}\nOutput:"
    turns = (Turn("user", question, False), Turn("assistant", label.strip(), True))
    return Row(turns, None, origin, "oig")


def _parts(record: Mapping[str, Any]) -> tuple[str, str]:
    said = next((v for name in _SAID if isinstance(v := record.get(name), str)), None)
    if said is None:
        raise ValueError(f"none of the fields {', '.join(_SAID)} is a text")
    labels = next((v for name in _LABELLED if (v := record.get(name))), None)
    if labels is None and isinstance(metadata := record.get("metadata"), Mapping):
        labels = next((v for name in _LABELLED if (v := metadata.get(name))), None)
    if isinstance(labels, str):
        return said, labels
    if isinstance(labels, list) and all(isinstance(label, str) for label in labels):
        return said, " | ".join(labels)
    if match := _INPUT_OUTPUT.fullmatch(said):
        return match[1], match[2]
    if dataset.recognises(record):
        asked, answered = (
            [turn.content for turn in dataset.turns_of(said) if turn.role == role]
            for role in ("user", "assistant")
        )
        if asked and answered:
            return asked[0], answered[0]
    raise ValueError(f"there is no label in it; its fields are {', '.join(map(repr, record))}")
