"""OIG-chip2, the small part of OIG that RedPajama-INCITE-Chat was fine-tuned on: 210,000 rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from data.catalogue import HubSource
from data.datasets import BadRow, Row
from data.datasets import oig as dataset

from ._jsonl import rows_of

TITLE = "OIG-chip2, 210,000 short rows of questions and answers"
LICENCE = "Apache-2.0"
SOURCE = HubSource("laion/OIG", patterns=("unified_chip2.jsonl", "unified_chip2.jsonl.gz"))


def rows(found: Sequence[Path], only: Sequence[str]) -> Iterator[Row | BadRow]:
    """Every row that has an answer."""
    return rows_of(found, dataset.row)
