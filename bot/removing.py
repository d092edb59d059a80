"""Which models can be deleted by name, and how: what `pull` fetched, and what an import made."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from data import models, records


class Deletable(NamedTuple):
    """A model; delete returns what else lies in its folder, and stays."""

    name: str
    folder: Path
    size: int
    maker: str
    delete: Callable[[], list[Path]]


def deletable(name: str) -> Deletable | None:
    """The model of that name; None where neither made one."""
    if pulled := records.find(name):
        delete = partial(models.remove, name)
        return Deletable(pulled.name, pulled.folder, pulled.size, "pull", delete)
    if mine := models.imported(name):
        delete = partial(models.remove_imported, mine)
        return Deletable(name, mine.path, size_of(mine.path), "import", delete)
    return None


def size_of(path: Path) -> int:
    """Of a model's file, or of the files in its folder."""
    inside = path.iterdir() if path.is_dir() else [path]
    return sum(file.stat().st_size for file in inside if file.is_file())
