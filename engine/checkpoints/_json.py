"""JSON from strangers: bounded in size, and every fault is one line with the file's name."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

MAX_BYTES = 16 << 20  # the largest tokenizer_config.json and index files have 2 MB
MAX_TEMPLATE_BYTES = 1 << 20


def read_text(path: Path, limit: int = MAX_BYTES) -> str:
    """A UTF-8 file of at most `limit` bytes. ValueError when it is larger or not UTF-8."""
    size = path.stat().st_size
    if size > limit:
        raise ValueError(f"{path}: {size:,} bytes, at most {limit:,} are read")
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 at byte {error.start}") from None


def read_object(path: Path, *, unique_keys: bool = False) -> dict[str, Any]:
    """The JSON object in a file."""
    return parse_object(read_text(path), str(path), unique_keys=unique_keys)


def parse_object(text: str, what: str, *, unique_keys: bool = False) -> dict[str, Any]:
    """The JSON object in `text`; `what` names it in messages."""
    try:
        value = json.loads(text, object_pairs_hook=_unique if unique_keys else None)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{what}: not JSON at line {error.lineno}, column {error.colno}: {error.msg}"
        ) from None
    except RecursionError:
        raise ValueError(f"{what}: JSON nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{what}: a JSON object is needed, got {type(value).__name__}")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        key, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"key {key[:80]!r} stands there twice")
    return found
