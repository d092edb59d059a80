"""Pieces of a long measurement, kept in a file so that a later run goes on where one ended."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


class OutOfTime(Exception):
    """The time of this run is over; what was made so far is kept."""


class Kept:
    """What was made, by name; without a path only of this run."""

    def __init__(self, path: Path | None = None, seconds: float | None = None) -> None:
        """seconds: after so long no new piece is begun."""
        self._path = path
        self._end = None if seconds is None else time.monotonic() + seconds
        self._found: dict[str, Any] = {}
        if path is not None and path.is_file():
            self._found = json.loads(path.read_text("utf-8"))

    def __contains__(self, name: str) -> bool:
        """Was the piece made?"""
        return name in self._found

    def get(self, name: str, make: Callable[..., Any], *arguments: Any) -> Any:
        """The piece, made where it is not there: anything that JSON can hold. Raises OutOfTime."""
        if name not in self._found:
            if self._end is not None and time.monotonic() > self._end:
                raise OutOfTime(name)
            self._found[name] = make(*arguments)
            self._write()
        return self._found[name]

    def _write(self) -> None:
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        part = self._path.with_suffix(".part")
        part.write_text(json.dumps(self._found), "utf-8")
        part.replace(self._path)
