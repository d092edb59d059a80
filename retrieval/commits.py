"""The number of the last commit, noted beside the database.

SQLite ends the log at its first damaged frame and takes what follows for never written. Against
the note, commits that were lost so are noticed.
"""

from __future__ import annotations

import json
from pathlib import Path

from loguru import logger

from data.files import write_json

from .schema import row_crc

FILE = "COMMITTED"


def note(folder: Path, number: int) -> None:
    """Remember that commit `number` is done. An older note is harmless, so failing is too."""
    try:
        write_json(folder / FILE, {"commit": number, "crc": row_crc(number)})
    except OSError as error:
        logger.warning("cannot note commit {} in {}: {}", number, folder, error)


def noted(folder: Path) -> int | None:
    """The number that a database must have reached; None when the note is gone or damaged."""
    try:
        value = json.loads((folder / FILE).read_text(encoding="utf-8"))
        number = value["commit"]
        if type(number) is int and value["crc"] == row_crc(number):
            return number
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    return None
