"""OIG, the Open Instruction Generalist dataset of LAION, Together and Ontocord: 43 million rows.

Whole it is tens of gigabytes; `only` takes some of its files, as in "unified_grade_school_math*".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from data.catalogue import HubSource
from data.datasets import BadRow, Row
from data.datasets import oig as dataset

from ._jsonl import rows_of

TITLE = "OIG, 43 million rows of instructions and answers"
LICENCE = "Apache-2.0"
SOURCE = HubSource("laion/OIG", patterns=("unified_*.jsonl", "unified_*.jsonl.gz"))


def rows(found: Sequence[Path], only: Sequence[str]) -> Iterator[Row | BadRow]:
    """Every row that has an answer, file after file."""
    return rows_of(found, dataset.row)
