"""The file that one of several encoders writes: vectors by the hash of their text.

One line of JSON (what it is, encoder, dimension, shard), one record for each text (hash, vector in
float16, CRC-32 of both), and the SHA-256 of all that. While it is written it is called
`<name>.part` and only grows: an encoder that was killed goes on behind the last whole record.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from data import files

from .changes import SHA_BYTES
from .vectors import Matrix

FORMAT = "sparsechat-shard-1"
PART = ".part"
MAX_HEADER, MAX_DIMENSION = 1 << 14, 1 << 16
DIGEST_BYTES = 32
BLOCK = 4096  # records read at once

Records = NDArray[np.void]  # of Header.record


class ShardError(ValueError):
    """A file that is no whole shard, or not the one that is asked for; one line that names it."""


@dataclass(frozen=True, slots=True)
class Header:
    """The first line. `shard` counts from 1 to `n_shards`; `name` is what load_encoder took."""

    encoder_id: str
    dimension: int
    shard: int
    n_shards: int
    name: str | None
    format: str = FORMAT

    @property
    def record(self) -> np.dtype[np.void]:
        """One text: "sha", "vector" (dimension,), "crc"."""
        vector = ("vector", "<f2", (self.dimension,))
        return np.dtype([("sha", f"V{SHA_BYTES}"), vector, ("crc", "<u4")])

    @property
    def line(self) -> bytes:
        """As it is written."""
        return json.dumps(asdict(self)).encode() + b"\n"


def append(file: IO[bytes], header: Header, shas: Sequence[bytes], matrix: Matrix) -> None:
    """Write records behind what is there. matrix (n, dimension)."""
    if matrix.shape != (len(shas), header.dimension) or not np.isfinite(matrix).all():
        raise ValueError(
            f"the encoder gave an array of {matrix.shape} for {len(shas)} texts and "
            f"{header.dimension} numbers each, or numbers that are not finite"
        )
    records: Records = np.zeros(len(shas), header.record)
    records["sha"] = np.frombuffer(b"".join(shas), f"V{SHA_BYTES}")
    records["vector"] = matrix
    records["crc"] = _crcs(records)
    file.write(records.tobytes())
    file.flush()


def finish(part: Path, out: Path) -> None:
    """Append the SHA-256 of what is there, and give the file its name."""
    digest = bytes.fromhex(files.sha256_of(part))
    with part.open("ab") as file:
        file.write(digest)
        file.flush()
        files.sync(file.fileno())
    os.replace(part, out)
    files.sync_folder(out.parent)


def verified(path: Path) -> Header:
    """The header of a whole file, all of it read: ShardError, FileNotFoundError."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no shard file {path}")
    header, start = _header(path)
    n_bytes = path.stat().st_size - start - DIGEST_BYTES
    if n_bytes < 0 or n_bytes % header.record.itemsize:
        raise ShardError(f"{path} is not whole: encode this shard again, or copy the file again")
    digest, left = hashlib.sha256(), start + n_bytes
    with path.open("rb") as file:
        while left and (piece := file.read(min(files.CHUNK, left))):
            digest.update(piece)
            left -= len(piece)
        if file.read() != digest.digest():
            raise ShardError(
                f"{path} is damaged (its SHA-256 differs): encode this shard again, or copy the "
                "file again"
            )
    return header


def n_records(path: Path, header: Header) -> int:
    """How many texts a verified file has vectors of."""
    return (path.stat().st_size - _header(path)[1] - DIGEST_BYTES) // header.record.itemsize


def records(path: Path, header: Header) -> Iterator[Records]:
    """The records of a verified file, in blocks."""
    left = n_records(path, header)
    with path.open("rb") as file:
        file.readline(MAX_HEADER)
        while left:
            n = min(BLOCK, left)
            yield np.frombuffer(file.read(n * header.record.itemsize), header.record)
            left -= n


def resume(out: Path, part: Path, header: Header) -> set[bytes]:
    """Hashes of the texts that have been encoded already, in `out` or else in `part`, which is
    cut behind its last whole record. ShardError when they are another shard's."""
    if part.exists():
        if b"\n" not in _start(part):  # killed within the first write
            part.unlink()
            return set()
        _require(part, _header(part)[0], header)
        return _cut(part, header)
    if not out.exists():
        return set()
    _require(out, verified(out), header)
    return {sha.tobytes() for block in records(out, header) for sha in block["sha"]}


def reopen(out: Path, part: Path) -> None:
    """Make a whole file one that grows again: a kill leaves one or the other."""
    os.replace(out, part)
    with part.open("rb+") as file:
        file.truncate(part.stat().st_size - DIGEST_BYTES)


def _cut(part: Path, header: Header) -> set[bytes]:
    known, size = set(), header.record.itemsize
    with part.open("rb+") as file:
        good = len(file.readline(MAX_HEADER))
        while raw := file.read(size * BLOCK):
            block = np.frombuffer(raw, header.record, count=len(raw) // size)
            is_whole = block["crc"] == _crcs(block)
            n = len(block) if is_whole.all() else int(np.argmin(is_whole))
            known |= {sha.tobytes() for sha in block["sha"][:n]}
            good += n * size
            if n * size < len(raw):
                break
        file.truncate(good)
    return known


def _crcs(block: Records) -> NDArray[np.uint32]:
    size = block.dtype.itemsize
    raw = memoryview(block.tobytes())
    starts = range(0, len(block) * size, size)
    return np.array([zlib.crc32(raw[start : start + size - 4]) for start in starts], np.uint32)


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.readline(MAX_HEADER)


def _header(path: Path) -> tuple[Header, int]:
    """The header and where the records begin."""
    line = _start(path)
    try:
        values: dict[str, Any] = json.loads(line)
        if not line.endswith(b"\n") or values.get("format") != FORMAT:
            raise ValueError
        if set(values) != {field.name for field in fields(Header)}:
            raise ValueError
        header = Header(**values)
        numbers = header.dimension, header.shard, header.n_shards
        if any(type(n) is not int or n < 1 for n in numbers) or header.dimension > MAX_DIMENSION:
            raise ValueError
        if type(header.encoder_id) is not str or not isinstance(header.name, str | None):
            raise ValueError
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ShardError(f"{path} is no shard file of this version of sparsechat") from error
    return header, len(line)


def _require(path: Path, found: Header, wanted: Header) -> None:
    def said(header: Header) -> str:
        return f"shard {header.shard}/{header.n_shards} of {header.encoder_id}"

    facts = [(h.encoder_id, h.dimension, h.shard, h.n_shards) for h in (found, wanted)]
    if facts[0] != facts[1]:
        raise ShardError(
            f"{path} is {said(found)}, not {said(wanted)}: delete it, or give another name"
        )
