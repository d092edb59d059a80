"""How a file of rows is laid out: lines of JSON, a JSON list, one object, or passages of text."""

from __future__ import annotations

import json
from pathlib import Path, PurePath

from .row_units import MAX_ROW_BYTES

_LINES = (".jsonl", ".ndjson", ".jsonlines")
_TEXTS = (".txt", ".text", ".md")
# what is looked for in folders; a README.md that lies there is no data
FOLDER_SUFFIXES = (*_LINES, ".json", ".txt")

BOM = b"\xef\xbb\xbf"
_WIDE_BOMS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"\0\0\xfe\xff": "UTF-32"}


def layout_of(content: Path, name: str) -> str:
    """ "lines", "list", "object" or "passages", by the file's name and its first bytes.

    ValueError when it is none of these: the reason alone.
    """
    with content.open("rb") as file:
        beginning = file.read(1 << 12)
    if wide := next((_WIDE_BOMS[bom] for bom in _WIDE_BOMS if beginning.startswith(bom)), None):
        raise ValueError(f"it is {wide}; save it as UTF-8")
    if b"\0" in beginning:
        raise ValueError("it is binary (there are zero bytes in it)")
    first = beginning.removeprefix(BOM).lstrip()[:1]
    suffix = PurePath(name).suffix.casefold()
    if suffix in _TEXTS:
        return "passages"
    if first == b"[":
        return "list"
    if suffix == ".json" and first == b"{" and not _begins_with_a_record(content):
        return "object"
    if suffix in (*_LINES, ".json") or first == b"{":
        return "lines"
    raise ValueError(
        "rows are read from .jsonl, .json and .txt files, packed as .gz or .zst or not"
    )


def _begins_with_a_record(content: Path) -> bool:
    """Is the first line by itself a JSON value? So are lines of JSON in files called .json."""
    with content.open("rb") as file:
        while (line := file.readline(MAX_ROW_BYTES)) and not line.removeprefix(BOM).strip():
            pass
    try:
        json.loads(line.removeprefix(BOM))
    except (ValueError, RecursionError):
        return False
    return True
