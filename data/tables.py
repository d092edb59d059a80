"""Tables of texts: JSON lines (also gzipped) or parquet with the columns text, title and url."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from .documents import Document, DocumentError

SUFFIXES = (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz", ".parquet")
_COLUMNS = ("text", "title", "url")
_MAX_LINE = 64 << 20
_BATCH = 1000


def rows(path: Path | str, start: int = 0) -> Iterator[Document]:
    """A document for each row that has text; a row at a time is in memory (of parquet, a thousand).

    start  rows to pass over: metadata["row"], which counts from 1, of the last one that is known
    A column "text" is needed, "title" and "url" may be missing or empty. uri = `path#row`.
    DocumentError, one line, when the file or a row cannot be read, after what comes before it.
    """
    path = Path(path).absolute()
    name = path.name.casefold()
    if not name.endswith(SUFFIXES):
        raise DocumentError(f"{path}: tables of texts are {', '.join(SUFFIXES)} files")
    if not path.is_file():
        raise DocumentError(f"{path}: there is no such file")
    found = _parquet(path, start) if name.endswith(".parquet") else _jsonl(path, start)
    for number, row in found:
        if document := _document(path, number, row):
            yield document


def _document(path: Path, number: int, row: Mapping[str, Any]) -> Document | None:
    for column in _COLUMNS:
        if not isinstance(row.get(column), str | None):
            raise DocumentError(
                f"{path}: row {number:,} has {type(row[column]).__name__} as the type of its "
                f"{column}; text, title and url are strings"
            )
    text = (row.get("text") or "").strip()
    if not text:
        return None
    title = (row.get("title") or "").strip()
    metadata = {"row": str(number), "mime": "text/plain"}
    if url := (row.get("url") or "").strip():
        metadata["url"] = url
    return Document(f"{path.as_posix()}#{number}", title or path.stem, text, (), metadata)


def _jsonl(path: Path, start: int) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """(number from 1, row) of every line that is not blank; lines are counted, blank or not."""
    try:
        opened: Any = gzip.open(path) if path.suffix.casefold() == ".gz" else path.open("rb")
        with opened as file:
            for number, line in enumerate(_lines(file, path), start=1):
                if number > start and line.strip():
                    yield number, _row(path, number, line)
    except (OSError, EOFError, zlib.error) as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise DocumentError(f"{path}: {error.strerror}") from error
        raise DocumentError(f"{path}: it is cut short or damaged ({error})") from error


def _lines(file: IO[bytes], path: Path) -> Iterator[bytes]:
    while line := file.readline(_MAX_LINE):
        if len(line) == _MAX_LINE:
            raise DocumentError(f"{path}: a line is longer than {_MAX_LINE >> 20} MiB")
        yield line


def _row(path: Path, number: int, line: bytes) -> Mapping[str, Any]:
    try:
        row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
    except (ValueError, RecursionError) as error:
        reason = "not UTF-8" if isinstance(error, UnicodeDecodeError) else "no JSON"
        raise DocumentError(f"{path}: line {number:,} is {reason} ({error})") from error
    if not isinstance(row, dict) or "text" not in row:
        raise DocumentError(f'{path}: line {number:,} is no object with a "text"')
    return row


def _parquet(path: Path, start: int) -> Iterator[tuple[int, Mapping[str, Any]]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise DocumentError(
            f"{path}: parquet files need the package pyarrow; "
            "python -m pip install 'sparsechat[wikipedia]' installs it"
        ) from error
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if "text" not in names:
                raise DocumentError(f"{path}: it has no column text, but {', '.join(names)}")
            columns = [name for name in _COLUMNS if name in names]
            number = 0
            for batch in file.iter_batches(_BATCH, columns=columns):
                if number + batch.num_rows > start:
                    for i, row in enumerate(batch.to_pylist(), start=number + 1):
                        if i > start:
                            yield i, row
                number += batch.num_rows
    except (pyarrow.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:150]
        raise DocumentError(f"{path}: it is no readable parquet file ({reason})") from error
