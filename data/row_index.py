"""Where the rows of a file lie: byte offsets and line numbers, so that any row is read by itself.

The index of a large file is kept in `<cache_dir>/rows/` and mapped, beside the unpacked content of
a compressed one: `KEY.units`, `KEY.content` and, written last, `KEY.json`. KEY stands for the
file's path, size and time of change; what belongs to a file that is gone or has changed is deleted
when another index is made.
"""

from __future__ import annotations

import json
import os
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from loguru import logger

from . import files, paths, row_units, unpacking
from .row_layout import BOM, layout_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

VERSION = 1  # of what is kept; another one makes everything anew
# the index of a smaller file is made again each time, which is quicker than to look for it
SMALL_BYTES = 1 << 20
_FLUSH = 1 << 16
_DAY_S = 86_400.0
_KINDS = (".json", ".units", ".content")


@dataclass(frozen=True, slots=True)
class RowIndex:
    """content  the file to read the rows from: the file itself, or its unpacked copy
    size     bytes of `content`
    layout   see row_layout
    units    (n_rows + 1, 2) int64: offset and line of each row; the last is where the rows end
    digest   of the content, in hex
    damage   why nothing can be read after the last row; "" where everything could
    """

    content: Path
    size: int
    layout: str
    units: NDArray[np.int64]
    digest: str
    damage: str

    @property
    def n_rows(self) -> int:
        return len(self.units) - 1


def open_index(path: Path) -> RowIndex:
    """The index of the file, made now where it is not kept.

    OSError in one line; ValueError: the reason alone.
    """
    status = path.stat()
    with path.open("rb") as file:
        is_packed = unpacking.is_compressed(file.read(4))
    if not is_packed and status.st_size <= SMALL_BYTES:
        values = array("q")
        meta = _scan(path, layout_of(path, path.name), values)
        return _index(path, meta, values)
    key = repr((VERSION, os.path.abspath(path), status.st_size, status.st_mtime_ns))
    stem = paths.cache_dir() / "rows" / blake2b(key.encode(), digest_size=12).hexdigest()
    if kept := _kept(path, stem):
        return kept
    files.private_folder(stem.parent)
    _tidy(stem.parent)
    started = time.monotonic()
    with files.room(stem.parent, lambda: files.CHUNK):
        _make(path, stem, is_packed)
    if not (made := _kept(path, stem)):
        raise OSError(f"{path} was changed while it was read; start again")
    logger.info("{}: {:,} rows, {:.1f} s", path.name, made.n_rows, time.monotonic() - started)
    return made


def _make(path: Path, stem: Path, is_packed: bool) -> None:
    """Write the files that stand for the index of `path`."""
    status = path.stat()
    meta: dict[str, Any] = {"version": VERSION, "path": os.path.abspath(path)}
    meta |= {"path_size": status.st_size, "mtime_ns": status.st_mtime_ns, "is_packed": is_packed}
    suffix = f".tmp-{os.getpid()}"
    content, units = (Path(f"{stem}{kind}{suffix}") for kind in (".content", ".units"))
    try:
        damage = _unpack(path, content) if is_packed else ""
        source = content if is_packed else path
        layout = layout_of(source, unpacking.inner_name(path.name))
        with units.open("wb") as file:
            values = array("q")
            meta |= _scan(source, layout, values, damage, lambda: _flush(values, file))
            _flush(values, file)
        for made in (content, units) if is_packed else (units,):
            with suppress(PermissionError):  # Windows: another process has made it and reads it
                os.replace(made, str(made).removesuffix(suffix))
        files.write_json(Path(f"{stem}.json"), meta)
    finally:
        files.delete(content, units)


def _unpack(path: Path, target: Path) -> str:
    """Write the content of the compressed file; returns why it is not whole, "" when it is."""
    with target.open("wb") as file:
        try:
            for block in unpacking.unpacked(path):
                file.write(block)
        except unpacking.DamagedError as error:
            return str(error)
    return ""


def _scan(
    path: Path,
    layout: str,
    values: array[int],
    damage: str = "",
    on_many: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Append offset and line of each row, and of their end, to `values`; returns other fields.

    damage   what is known to be wrong with the end of the file
    on_many  called now and then; may empty `values`
    """
    with path.open("rb") as file:
        hashed = _Hashed(file)
        offset, line = (len(BOM), 0) if file.read(len(BOM)) == BOM else (0, 0)
        file.seek(offset)
        is_torn = False
        try:
            starts = _starts(hashed, layout, offset)
            for offset, line in starts:
                values.extend((offset, line))
                if len(values) >= _FLUSH:
                    on_many()
            while hashed.read(files.CHUNK):
                pass
            # of a file that is cut short the last row is not whole: where it begins they end
            is_torn = bool(damage and line and layout in ("lines", "object") and hashed.is_open)
            offset, line = file.tell(), line + 1
        except row_units.UnreadableError as error:
            damage, offset, line = damage or str(error), error.offset, error.line
            while hashed.read(files.CHUNK):
                pass
        if not is_torn:
            values.extend((offset, line))
        size = file.tell()
    return {"layout": layout, "size": size, "digest": hashed.hexdigest(), "damage": damage}


def _starts(file: _Hashed, layout: str, offset: int) -> Iterator[tuple[int, int]]:
    if layout == "object":
        return iter([(offset, 1)])
    scanners = {"lines": row_units.lines, "list": row_units.members}
    return scanners.get(layout, row_units.passages)(file, offset)


class _Hashed:
    """A file that is hashed while it is read. is_open: what was read last ends no line."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._digest, self.is_open = file, blake2b(digest_size=16), False

    def read(self, size: int, /) -> bytes:
        return self._passed(self._file.read(size))

    def readline(self, size: int, /) -> bytes:
        return self._passed(self._file.readline(size))

    def hexdigest(self) -> str:
        return self._digest.hexdigest()

    def _passed(self, data: bytes) -> bytes:
        if data:
            self._digest.update(data)
            self.is_open = not data.endswith(b"\n")
        return data


def _flush(values: array[int], file: IO[bytes]) -> None:
    values.tofile(file)
    del values[:]


def _kept(path: Path, stem: Path) -> RowIndex | None:
    """The index that is kept, when it is whole and of the file as it is now."""
    try:
        meta: dict[str, Any] = json.loads(Path(f"{stem}.json").read_text(encoding="utf-8"))
        content = Path(f"{stem}.content") if meta["is_packed"] else path
        if not _is_of(meta) or content.stat().st_size != meta["size"]:
            return None
        return _index(content, meta, Path(f"{stem}.units"))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_of(meta: dict[str, Any]) -> bool:
    """Is the file that the index was made of there and unchanged?"""
    try:
        status = os.stat(meta["path"])
    except OSError:
        return False
    found = (VERSION, status.st_size, status.st_mtime_ns)
    return found == (meta["version"], meta["path_size"], meta["mtime_ns"])


def _index(content: Path, meta: dict[str, Any], units: array[int] | Path) -> RowIndex:
    import numpy as np

    values: NDArray[np.int64]
    if isinstance(units, Path):
        values = np.memmap(units, np.int64, mode="r")
    else:
        values = np.array(units, np.int64)
    fields = [meta[name] for name in ("layout", "digest", "damage")]
    layout, digest, damage = map(str, fields)
    return RowIndex(content, int(meta["size"]), layout, values.reshape(-1, 2), digest, damage)


def _tidy(folder: Path) -> None:
    """Delete what belongs to no file as it is now, and what a process that died has left."""
    for record in sorted(folder.glob("*.json")):
        try:
            is_used = _is_of(json.loads(record.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError):
            is_used = False
        for kind in () if is_used else _KINDS:
            with suppress(OSError):  # Windows: a process reads it
                record.with_suffix(kind).unlink()
    for path in sorted(folder.iterdir()):
        has_record = path.with_suffix(".json").exists()  # not of a temporary one
        with suppress(OSError):
            if not has_record and time.time() - path.stat().st_mtime > _DAY_S:
                path.unlink()
