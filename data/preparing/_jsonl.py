"""Records of JSON Lines files, for recipes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data.datasets import BadRow, Row
from data.row_files import open_row_file


def rows_of(
    found: Sequence[Path], row: Callable[[Mapping[str, Any], str], Row]
) -> Iterator[Row | BadRow]:
    """What `row` makes of each record of the files; BadRow where that is a ValueError."""
    for path in found:
        file = open_row_file(path, path.name, None)
        for number in range(file.n_rows):
            if number == file.index.n_rows:
                yield file.read(number)
                continue
            origin = f"{path.name}:{file.index.units[number, 1]}"
            try:
                yield row(file.record(number), origin)
            except ValueError as error:
                yield BadRow(origin, str(error))
