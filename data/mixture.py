"""Mixtures of training data as OpenChatKit writes them: `a.jsonl:2,folder:1`."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import NamedTuple

# one with a letter before the colon is a drive of Windows
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


class Source(NamedTuple):
    """A file or folder as it was written, and its share; weight None where none was given."""

    path: str
    weight: float | None


def parse_mixture(spec: str) -> list[Source]:
    """The sources in `path[:weight],path[:weight],…`.

    A file may have commas and colons in its name (C:\\data\\a.jsonl): what exists decides, the
    longest name first. FileNotFoundError for what does not exist, ValueError for a wrong weight.
    """
    pieces = spec.split(",")
    found: list[Source] = []
    while pieces:
        for n_pieces in range(len(pieces), 0, -1):
            if source := _existing(",".join(pieces[:n_pieces]).strip(), spec):
                found.append(source)
                del pieces[:n_pieces]
                break
        else:
            raise _missing(pieces[0].strip(), spec)
    names = [source.path for source in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"{twice} stands twice in {spec!r}; give it once, with a larger weight")
    return found


def _existing(written: str, spec: str) -> Source | None:
    """The source that `written` is; None when there is no such file or folder."""
    if not written:
        return None
    if _exists(written):
        return Source(written, None)
    path, colon, weight = written.rpartition(":")
    if not colon or not path or "," in weight or not _exists(path):
        return None
    return Source(path, _weight(weight, path, spec))


def _weight(written: str, path: str, spec: str) -> float:
    try:
        weight = float(written)
    except ValueError:
        weight = math.nan
    if not (0 < weight < math.inf):
        raise ValueError(
            f"the weight of {path} is {written!r} in {spec!r}; it must be a number above 0, as in "
            f"{path}:0.5"
        )
    return weight


def _exists(path: str) -> bool:
    try:
        return Path(path).expanduser().exists()
    except (OSError, RuntimeError, ValueError):  # a name too long, an unknown ~user, a zero byte
        return False


def _missing(written: str, spec: str) -> Exception:
    whole = f" in {spec!r}" if "," in spec else ""
    if not written:
        return ValueError(f"there is no name of a file{whole or f', got {spec!r}'}")
    if _ADDRESS.match(written):
        return ValueError(f"{written} is an address; download it, then name the file")
    path, colon, weight = written.rpartition(":")
    is_weight = colon and re.fullmatch(r"[+-]?[\d.]*(?:e[+-]?\d+)?", weight, re.IGNORECASE)
    name = path if is_weight and path else written
    return FileNotFoundError(f"there is no file or folder {name}{whole}")
