"""Preparing: public training data fetched and written down as OIG rows, one file per source.

Each has `TITLE`, `LICENCE`, `SOURCE` (where it comes from when nothing else is named) and
`rows(files, only) -> Iterator[Row | BadRow]`, the conversations in the fetched files. Modules whose
names begin with an underscore are shared.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import NamedTuple, Protocol, cast

from loguru import logger

from data import files
from data.catalogue import Source
from data.datasets import BadRow, Row
from data.datasets.oig import text_of
from data.download import Progress

__all__ = ["RECIPES", "Prepared", "Recipe", "prepare", "recipe"]

RECIPES = tuple(sorted(m.name for m in iter_modules(__path__) if not m.name.startswith("_")))
_SHOWN = 5


class Recipe(Protocol):
    """What a file of this folder gives."""

    TITLE: str
    LICENCE: str
    SOURCE: Source

    def rows(self, found: Sequence[Path], only: Sequence[str]) -> Iterator[Row | BadRow]: ...


class Prepared(NamedTuple):
    """A file of rows. source: what it was made of; left_out: examples of the n_left_out rows, one
    for each reason, at most five."""

    path: Path
    n_rows: int
    n_left_out: int
    left_out: tuple[BadRow, ...]
    source: str


def recipe(name: str) -> Recipe:
    """data/preparing/<name>.py; ValueError for a name that there is not ("oig-chip2" is good)."""
    known = name.replace("-", "_")
    if known not in RECIPES:
        near = get_close_matches(known, RECIPES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(RECIPES)}"
        raise ValueError(f"no training data is called {name!r}; {hint}")
    return cast(Recipe, import_module(f"{__name__}.{known}"))


def prepare(
    name: str,
    target: Path,
    origin: str | None = None,
    *,
    only: Sequence[str] = (),
    overwrite: bool = False,
    on_progress: Progress | None = None,
    on_note: Callable[[str], None] | None = None,
) -> Prepared:
    """Write the rows of the data `name` to the file `target` as OIG writes them, one per line.

    origin       a file, a folder or an http(s) address to take instead of the recipe's own source
    only         patterns of file names (of chatterbot: of languages); () means all, or what the
                 recipe says
    on_progress  hears (what is being done, done, in all or None); on_note single lines
    The target is there whole or not at all; an interrupted download goes on where it stopped.
    Raises OSError (FileExistsError, DownloadError, files.DiskFullError) and ValueError, one line.
    """
    from . import _fetching

    chosen = recipe(name)
    if target.exists() and not overwrite:
        raise FileExistsError(f"{target} is there already; name another file, or allow overwriting")
    report = on_progress or (lambda stage, done, total: None)
    target.parent.mkdir(parents=True, exist_ok=True)
    with (
        _fetching.fetched(name.replace("-", "_"), chosen, origin, only, report, on_note) as found,
        files.room(target.parent, lambda: files.CHUNK),
    ):
        made = _write(target, chosen.rows(found.paths, only), report)
    logger.info("wrote {:,} rows of {} to {}", made.n_rows, found.label, target)
    return made._replace(source=found.label)


def _write(target: Path, rows: Iterator[Row | BadRow], on_progress: Progress) -> Prepared:
    temporary = target.with_name(f"{target.name}.tmp-{os.getpid()}")
    n_rows, n_left_out = 0, 0
    examples: dict[str, BadRow] = {}
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            for row in rows:
                bad = row if isinstance(row, BadRow) else _write_row(file.write, row)
                n_rows, n_left_out = n_rows + (bad is None), n_left_out + (bad is not None)
                if bad and len(examples) < _SHOWN:
                    examples.setdefault(bad.reason, bad)
                if n_rows % 1000 == 0:
                    on_progress("writing rows", n_rows, None)
            file.flush()
            files.sync(file.fileno())
        if not n_rows:
            found = "".join(f"; {bad.origin}: {bad.reason}" for bad in examples.values())
            raise ValueError(f"there are no rows to write{found}")
        os.replace(temporary, target)
    finally:
        files.delete(temporary)
    files.sync_folder(target.parent)
    return Prepared(target, n_rows, n_left_out, tuple(examples.values()), "")


def _write_row(write: Callable[[str], object], row: Row) -> BadRow | None:
    """Write the row as a line; what cannot be written comes back."""
    try:
        text = text_of(row.turns) if row.turns else row.text
    except ValueError as error:
        return BadRow(row.origin, str(error))
    write(json.dumps({"text": text, "metadata": {"source": row.origin}}, ensure_ascii=False) + "\n")
    return None
