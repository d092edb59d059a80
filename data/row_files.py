"""Files of training rows: any row of one is read by its number, and a wrong one says why."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from . import row_index, unpacking
from .datasets import DATASETS, BadRow, LeftOut, Row, dataset, recognised
from .files import megabytes
from .row_index import RowIndex
from .row_layout import FOLDER_SUFFIXES
from .row_units import END_OF_DOCUMENT, MAX_ROW_BYTES

# the kind of a file is what most of its first rows are
_N_ASKED = 20
_N_LOOKED_AT = 1000


@dataclass(frozen=True, slots=True)
class RowFile:
    """name  for people, as in "folder/a.jsonl"
    kind  the name of its dataset; None where its first rows are of none, and each is asked
    """

    name: str
    index: RowIndex
    kind: str | None

    @property
    def n_rows(self) -> int:
        """Its rows; a damaged end counts as one, a bad one."""
        return self.index.n_rows + bool(self.index.damage)

    def read(self, number: int) -> Row | BadRow:
        """The row `number`, from 0. OSError when the file has changed meanwhile."""
        origin = f"{self.name}:{self.index.units[number, 1]}"
        if number == self.index.n_rows:
            return BadRow(origin, f"{self.index.damage}; {number:,} rows before it can be read")
        try:
            record = self.record(number)
            kind = self.kind or recognised([record])
            if kind is None:
                raise ValueError(
                    f"it is of no known kind; its fields are {_fields(record)}, and the kinds are "
                    f"{', '.join(DATASETS)}"
                )
            return dataset(kind).row(record, origin)
        except ValueError as error:
            return BadRow(origin, str(error), isinstance(error, LeftOut))

    def record(self, number: int) -> Mapping[str, Any]:
        """The JSON object of the row; of a passage {"text": …}. ValueError with the reason."""
        text = _decoded(self._bytes(number))
        if self.index.layout == "passages":
            return {"text": _passage(text)}
        value = _parsed(text.strip())
        if not isinstance(value, Mapping):
            raise ValueError("it is no JSON object {…}")
        return value

    def _bytes(self, number: int) -> bytes:
        (start, _), (end, _) = self.index.units[number : number + 2].tolist()
        if end - start > MAX_ROW_BYTES:
            raise ValueError(
                f"it has {megabytes(end - start)}; a row has at most {megabytes(MAX_ROW_BYTES)}"
            )
        with self.index.content.open("rb", buffering=0) as file:
            if os.fstat(file.fileno()).st_size != self.index.size:
                raise OSError(f"{self.name} was changed while it was read; start again")
            file.seek(start)
            return file.read(end - start)


def open_row_file(path: Path, name: str, kind: str | None) -> RowFile:
    """The rows of one file; OSError or ValueError in one line. kind None: it is recognised."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{name}: it is no file to be read at any place; write it to a file first")
    try:
        index = row_index.open_index(path)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    except OSError as error:
        if error.strerror is None:  # a line of ours
            raise
        raise type(error)(f"{name} cannot be read: {error.strerror.lower()}") from error
    if index.layout == "passages":
        if kind not in (None, "text"):
            raise ValueError(f"{name}: it is plain text, there are no rows of kind {kind!r} in it")
        kind = "text"
    file = RowFile(name, index, kind)
    return file if kind else replace(file, kind=recognised(islice(_records(file), _N_ASKED)))


def files_of(path: str) -> list[tuple[Path, str]]:
    """The files that `path`, a file or a folder, stands for, with their names for people.

    Of a folder all .jsonl, .json and .txt files at any depth, packed or not, sorted; hidden ones
    are left out. Links to files are followed: the hub's cache is made of them.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        return [(root, path)]
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            is_wanted = unpacking.inner_name(name).casefold().endswith(FOLDER_SUFFIXES)
            if is_wanted and not name.startswith(".") and Path(folder, name).is_file():
                file = Path(folder, name)
                found.append((file, f"{path.rstrip('/')}/{file.relative_to(root).as_posix()}"))
    if not found:
        raise ValueError(f"{path}: there are no .jsonl, .json or .txt files in this folder")
    return sorted(found, key=lambda pair: pair[1])


def _records(file: RowFile) -> Iterator[Mapping[str, Any]]:
    for number in range(min(file.index.n_rows, _N_LOOKED_AT)):
        try:
            yield file.record(number)
        except ValueError:
            continue


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"it is not UTF-8 (byte 0x{data[error.start]:02x} at its byte {error.start + 1}); "
            "save the file as UTF-8"
        ) from error


def _parsed(text: str) -> Any:
    """The JSON value; what follows the member of a list does not count."""
    try:
        value, end = json.JSONDecoder().raw_decode(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"it is no JSON: {error.msg} at column {error.pos + 1}") from error
    except RecursionError as error:
        raise ValueError("its values are nested too deeply") from error
    except ValueError as error:  # a number of thousands of digits
        raise ValueError(f"it is no JSON: {str(error).partition(';')[0]}") from error
    if (rest := text[end:].strip()) and rest not in (",", "]", ",]"):
        raise ValueError(f"it is no JSON: something follows its value at column {end + 1}")
    return value


def _passage(text: str) -> str:
    text, mark = text.strip(), END_OF_DOCUMENT.decode()
    while text.endswith(mark):
        text = text.removesuffix(mark).rstrip()
    return text.replace("\r\n", "\n")


def _fields(record: Mapping[str, Any]) -> str:
    return ", ".join([repr(name)[:40] for name in list(record)[:8]]) or "none"
