"""Damage: how it is told, and how damaged files are set aside. Nothing damaged is ever deleted."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

from loguru import logger

MARK = ".damaged-"


class DamagedError(OSError):
    """A file or folder `path` of a base is not what was written: one line with the way out."""

    def __init__(self, path: Path, what: str) -> None:
        base = path.parent.name
        super().__init__(
            f"the knowledge base {base} is damaged: {path.name}: {what}; "
            f"`sparsechat kb verify {base} --repair` sets it aside and takes over what is whole"
        )
        self.path, self.what = path, what


def set_aside(*paths: Path) -> list[Path]:
    """Rename what exists to `<name>.damaged-<time>` in the same folder; the new paths."""
    stamp = f"{datetime.now():%Y%m%d-%H%M%S}"
    moved = []
    for path in paths:
        if not path.exists():
            continue
        target, n = path.with_name(f"{path.name}{MARK}{stamp}"), 1
        while target.exists():
            target, n = path.with_name(f"{path.name}{MARK}{stamp}-{n}"), n + 1
        try:
            os.rename(path, target)
        except FileNotFoundError:  # another process was quicker
            continue
        logger.warning("set aside as damaged: {}", target)
        moved.append(target)
    return moved
