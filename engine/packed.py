"""One file of named arrays that is mapped, not read: the packed weights on disk.

Layout as in safetensors: 8 bytes little-endian header length, a JSON header, then the arrays, each
at a multiple of 64 bytes. Written under a temporary name, synced and renamed, so that a file under
its own name is whole.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

ALIGNMENT = 64
_MAX_HEADER = 64 << 20


class Entry(NamedTuple):
    """One array to come: `chunks` yields its bytes, n_bytes in all."""

    name: str
    n_bytes: int
    attributes: Mapping[str, Any]  # stored in the header as they are; JSON values
    chunks: Callable[[], Iterable[NDArray[np.uint8]]]


def _aligned(n: int) -> int:
    return -(-n // ALIGNMENT) * ALIGNMENT


@contextmanager
def replacing(path: Path, durable: bool = True) -> Iterator[BinaryIO]:
    """A file beside `path` that takes its name when the block ends well; else it goes.

    durable  synced before; without, a power cut may leave a file of its size and any content
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        os.close(handle)
        with open(temporary, "wb") as file:  # by its name, which is then file.name
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """A folder beside `path` that takes its name, and its place, when the block ends well."""
    path = path.absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _sync(file)
        share(temporary)
        old = temporary.with_name(f"{temporary.name}.old")
        if path.exists():
            os.replace(path, old)
        os.replace(temporary, path)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def share(path: Path) -> None:
    """Let others read what was made for its owner alone, as far as the umask does."""
    if os.name == "posix":
        path.chmod((0o777 if path.is_dir() else 0o666) & ~_umask())


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def write(path: Path, entries: Iterable[Entry], durable: bool = True) -> None:
    """Write the entries in their order; OSError when the disk is full or read-only.

    durable  see replacing
    """
    entries = list(entries)
    header, offset = {}, 0
    for entry in entries:
        header[entry.name] = {**entry.attributes, "offset": offset, "n_bytes": entry.n_bytes}
        offset = _aligned(offset + entry.n_bytes)
    text = json.dumps(header).encode()
    text += b" " * (_aligned(len(text) + 8) - len(text) - 8)
    with replacing(path, durable) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for entry in entries:
            written = 0
            for chunk in entry.chunks():
                written += file.write(np.ascontiguousarray(chunk).data)
            assert written == entry.n_bytes, entry.name
            file.write(b"\0" * (_aligned(written) - written))


def open_packed(path: Path) -> dict[str, tuple[NDArray[np.uint8], dict[str, Any]]]:
    """name -> (bytes mapped read-only, attributes); ValueError for a file that is not whole."""
    try:
        data = np.memmap(path, np.uint8, mode="r")
        n_header = int.from_bytes(data[:8].tobytes(), "little")
        if not 0 < n_header <= min(_MAX_HEADER, data.size - 8):
            raise ValueError(f"its header claims {n_header} bytes")
        header = json.loads(data[8 : 8 + n_header].tobytes())
        start = 8 + n_header
        arrays = {}
        for name, attributes in header.items():
            first = start + attributes.pop("offset")
            last = first + attributes.pop("n_bytes")
            if not start <= first <= last <= data.size:
                raise ValueError(f"{name} ends at byte {last} of {data.size}")
            arrays[name] = (data[first:last], attributes)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{path.name} is damaged: {error}") from error
    return arrays
