"""A JSONL file that is written row by row and gone on with where an earlier run stopped."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, BinaryIO

from data import files


class RowFile:
    """Rows of one knowledge base. Each is on the disk when `append` returns.

    chunk_ids  of their passages, in the file's order
    """

    def __init__(self, path: Path, base: str) -> None:
        """Opens or makes the file; ValueError when it holds other rows than those of `base`."""
        self.path = path
        self.chunk_ids, end = _looked_through(path, base)
        self._file: BinaryIO = path.open("r+b" if path.exists() else "w+b")
        self._file.truncate(end)  # a run that was killed may have left half a row
        self._file.seek(end)

    def append(self, row: dict[str, Any]) -> None:
        """Write one row."""
        self._file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
        self._file.flush()
        files.sync(self._file.fileno())
        self.chunk_ids.append(row["metadata"]["chunk_id"])

    def close(self) -> None:
        """Give the file back; an empty one is taken away."""
        self._file.close()
        if not self.chunk_ids:
            os.unlink(self.path)


def _looked_through(path: Path, base: str) -> tuple[list[int], int]:
    """The chunk_ids of its whole rows, and where the last one ends."""
    chunk_ids: list[int] = []
    end = 0
    if not path.exists():
        return chunk_ids, end
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            try:
                metadata = json.loads(line)["metadata"]
                kb, chunk_id = metadata["kb"], int(metadata["chunk_id"])
            except (ValueError, KeyError, TypeError):
                kb, chunk_id = None, 0
            if kb != base:
                raise ValueError(
                    f"{path}:{len(chunk_ids) + 1} is no row of the knowledge base {base}; "
                    "choose another file with --out"
                )
            chunk_ids.append(chunk_id)
            end += len(line)
    return chunk_ids, end
