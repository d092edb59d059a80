"""The bytes of a GGUF file (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md), bounded.

Every count, length, offset and product is checked against the file's size before it is used, in
Python integers, which do not wrap around. The gguf package's reader does neither (llama.cpp issue
25378). Arrays are skipped when the file is opened and decoded when they are asked for.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from struct import Struct
from typing import Any

import numpy as np

from engine.checkpoints import RawTensor, _kinds
from engine.checkpoints._mapped import map_file

MAX_KEYS = MAX_TENSORS = 1 << 16  # a hundred times what the largest models have
MAX_ITEMS = 1 << 24  # of an array of strings or arrays; the largest vocabularies have 2**18
MAX_KEY_BYTES = (1 << 16) - 1
MAX_NAME_BYTES = 64
MAX_DEPTH = 3  # arrays in arrays
MAX_DIMS = 4
MAX_ALIGNMENT = 1 << 20
DEFAULT_ALIGNMENT = 32

BOOL, STRING, ARRAY = 7, 8, 9
SCALARS = {
    type_id: Struct("<" + code)
    for type_id, code in zip((0, 1, 2, 3, 4, 5, 6, BOOL, 10, 11, 12), "BbHhIifBQqd", strict=True)
}
_U32, _U64 = SCALARS[4], SCALARS[10]
AGAIN = "download it again with `sparsechat models pull`"


class _Cursor:
    """A place in a mapped file; nothing is read beyond the file's end."""

    def __init__(self, path: Path, data: mmap.mmap, at: int = 0) -> None:
        self.path, self.data, self.size, self.at = path, data, len(data), at

    def error(self, text: str) -> ValueError:
        return ValueError(f"{self.path}: {text}")

    def skip(self, n_bytes: int, what: str) -> int:
        """Step over n_bytes and return where they begin."""
        start = self.at
        if n_bytes > self.size - start:
            raise self.error(
                f"ends inside {what}: {n_bytes:,} bytes wanted at {start:,}, the file has "
                f"{self.size:,}; {AGAIN}"
            )
        self.at = start + n_bytes
        return start

    def number(self, layout: Struct, what: str) -> Any:
        return layout.unpack_from(self.data, self.skip(layout.size, what))[0]

    def text(self, what: str, limit: int | None = None) -> str:
        n_bytes = self.number(_U64, what)
        if limit is not None and not 0 < n_bytes <= limit:
            raise self.error(f"{what} is {n_bytes:,} bytes long, 1 to {limit:,} are allowed")
        start = self.skip(n_bytes, what)
        try:
            return str(self.data[start : start + n_bytes], "utf-8")
        except UnicodeDecodeError:
            raise self.error(f"{what} is not UTF-8; {AGAIN}") from None


@dataclass(frozen=True, slots=True)
class _Array:
    """Where an array's items lie; its bounds have been checked."""

    cursor: _Cursor
    key: str
    item_type: int
    count: int

    def decode(self) -> list[Any]:
        at = _Cursor(self.cursor.path, self.cursor.data, self.cursor.at)
        if self.item_type == STRING:
            return self._strings()
        if self.item_type == ARRAY:
            return [_skip_array(at, f"{self.key}[{i}]", 1).decode() for i in range(self.count)]
        layout = SCALARS[self.item_type]
        values = np.frombuffer(at.data, np.dtype(layout.format), self.count, at.at)
        items: list[Any] = values.tolist()
        return [item != 0 for item in items] if self.item_type == BOOL else items

    def _strings(self) -> list[str]:
        # a bare loop: 100,000 tokens and merges are read in 40 ms
        data, at, unpack = self.cursor.data, self.cursor.at, _U64.unpack_from
        found: list[str] = []
        try:
            for _ in range(self.count):
                start = at + 8
                at = start + unpack(data, at)[0]
                found.append(str(data[start:at], "utf-8"))
        except UnicodeDecodeError:
            raise self.cursor.error(f"{self.key}[{len(found)}] is not UTF-8; {AGAIN}") from None
        return found


class Metadata(Mapping[str, Any]):
    """A GGUF file's keys and values; arrays become lists when they are first asked for."""

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values

    def __getitem__(self, key: str) -> Any:
        value = self._values[key]
        if isinstance(value, _Array):
            value = self._values[key] = value.decode()
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def below(self, prefix: str) -> Metadata:
        """The keys that begin with `prefix`, without it."""
        n = len(prefix)
        return Metadata({k[n:]: v for k, v in self._values.items() if k.startswith(prefix)})


@dataclass(frozen=True, slots=True)
class GGUFFile:
    """metadata by key and tensors by their stored names, in the file's order."""

    path: Path
    metadata: Metadata
    tensors: Mapping[str, RawTensor]


@dataclass(frozen=True, slots=True)
class _TensorInfo:
    name: str
    shape: tuple[int, ...]
    kind: str
    offset: int  # from the beginning of the data section
    n_bytes: int


def read_gguf(path: Path) -> GGUFFile:
    """Map a little-endian GGUF file of version 2 or 3. ValueError when it breaks a rule."""
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: an empty file; {AGAIN}")
    cursor = _Cursor(path, map_file(path))
    n_tensors, n_keys = _read_counts(cursor)
    metadata = _read_metadata(cursor, n_keys)
    infos = [_read_tensor_info(cursor, i) for i in range(n_tensors)]
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if not (isinstance(alignment, int) and alignment in {1 << n for n in range(21)}):
        raise cursor.error(
            f"general.alignment is {alignment!r}; a power of two up to {MAX_ALIGNMENT:,} is allowed"
        )
    data_start = -(-cursor.at // alignment) * alignment
    _check_layout(cursor, infos, data_start, alignment)
    everything = np.frombuffer(cursor.data, dtype=np.uint8)
    tensors = {}
    for info in infos:
        start = data_start + info.offset
        data = everything[start : start + info.n_bytes]
        tensors[info.name] = RawTensor(info.name, info.shape, info.kind, data, str(path))
    return GGUFFile(path, metadata, tensors)


def raw_metadata(path: Path) -> dict[str, bytes]:
    """Key -> the bytes that stand for it and its value in a file that read_gguf takes."""
    cursor, found = _Cursor(path, map_file(path)), {}
    for i in range(_read_counts(cursor)[1]):
        start = cursor.at
        key = cursor.text(f"key {i}", MAX_KEY_BYTES)
        _read_value(cursor, key)
        found[key] = cursor.data[start : cursor.at]
    return found


def _read_counts(cursor: _Cursor) -> tuple[int, int]:
    start = cursor.skip(4, "the magic number")
    magic = cursor.data[start : start + 4]
    if magic != b"GGUF":
        raise cursor.error(f"not a GGUF file: it begins with {magic!r}; {AGAIN}")
    version = cursor.number(_U32, "the version")
    if version & 0xFFFF == 0:
        raise cursor.error("a big-endian GGUF file; this build reads little-endian ones")
    if version not in (2, 3):
        raise cursor.error(f"GGUF version {version}; this build reads versions 2 and 3")
    n_tensors = cursor.number(_U64, "the number of tensors")
    n_keys = cursor.number(_U64, "the number of keys")
    for count, limit, what in ((n_tensors, MAX_TENSORS, "tensors"), (n_keys, MAX_KEYS, "keys")):
        if count > limit:
            raise cursor.error(f"claims {count:,} {what}; at most {limit:,} are allowed")
    return n_tensors, n_keys


def _read_metadata(cursor: _Cursor, n_keys: int) -> Metadata:
    values: dict[str, Any] = {}
    for i in range(n_keys):
        key = cursor.text(f"key {i}", MAX_KEY_BYTES)
        if key in values:
            raise cursor.error(f"key {_short(key)} stands there twice")
        values[key] = _read_value(cursor, _short(key)[1:-1])
    return Metadata(values)


def _read_value(cursor: _Cursor, key: str) -> Any:
    type_id = cursor.number(_U32, key)
    if type_id == STRING:
        return cursor.text(key)
    if type_id == ARRAY:
        return _skip_array(cursor, key, 0)
    if type_id not in SCALARS:
        raise cursor.error(f"{key} has type {type_id}; GGUF has types 0 to 12")
    value = cursor.number(SCALARS[type_id], key)
    if type_id == BOOL and value > 1:
        raise cursor.error(f"{key} must be 0 or 1, got {value}")
    return bool(value) if type_id == BOOL else value


def _skip_array(cursor: _Cursor, key: str, depth: int) -> _Array:
    """Check an array's bounds and step over it."""
    item_type = cursor.number(_U32, key)
    count = cursor.number(_U64, key)
    array = _Array(_Cursor(cursor.path, cursor.data, cursor.at), key, item_type, count)
    if item_type in SCALARS:
        cursor.skip(count * SCALARS[item_type].size, key)
        return array
    if item_type not in (STRING, ARRAY):
        raise cursor.error(f"{key} has items of type {item_type}; GGUF has types 0 to 12")
    if count > min(MAX_ITEMS, (cursor.size - cursor.at) // 8):
        raise cursor.error(f"{key} claims {count:,} items, more than fit into the file; {AGAIN}")
    if item_type == STRING:
        _skip_strings(cursor, key, count)
        return array
    if depth == MAX_DEPTH:
        raise cursor.error(f"{key} nests arrays more than {MAX_DEPTH} deep")
    for i in range(count):
        _skip_array(cursor, f"{key}[{i}]", depth + 1)
    return array


def _skip_strings(cursor: _Cursor, key: str, count: int) -> None:
    data, size, at, unpack = cursor.data, cursor.size, cursor.at, _U64.unpack_from
    for i in range(count):
        if at + 8 > size:
            raise cursor.error(f"ends inside {key}[{i}]; {AGAIN}")
        at += 8 + unpack(data, at)[0]
    cursor.skip(at - cursor.at, key)


def _read_tensor_info(cursor: _Cursor, i: int) -> _TensorInfo:
    name = cursor.text(f"the name of tensor {i}", MAX_NAME_BYTES)
    what = f"tensor {_short(name)}"
    n_dims = cursor.number(_U32, what)
    if not 1 <= n_dims <= MAX_DIMS:
        raise cursor.error(f"{what} has {n_dims:,} dimensions, 1 to {MAX_DIMS} are allowed")
    # GGUF counts from the fastest dimension, NumPy from the slowest
    shape = tuple(cursor.number(_U64, what) for _ in range(n_dims))[::-1]
    type_id = cursor.number(_U32, what)
    offset = cursor.number(_U64, what)
    kind = _kinds.by_id(type_id)
    if kind is None:
        raise cursor.error(f"{what} has type {type_id}, which is not a type this build knows")
    if min(shape) < 1:
        raise cursor.error(f"{what} is empty: its shape is {shape}")
    if shape[-1] % kind.n_weights:
        raise cursor.error(
            f"{what} has rows of {shape[-1]:,} weights, not a multiple of "
            f"{kind.name}'s block of {kind.n_weights}"
        )
    return _TensorInfo(name, shape, kind.name, offset, prod(shape) // kind.n_weights * kind.n_bytes)


def _check_layout(
    cursor: _Cursor, infos: list[_TensorInfo], data_start: int, alignment: int
) -> None:
    """Names are unique; tensors are aligned, inside the file and do not overlap."""
    names: set[str] = set()
    previous, end = "", 0
    for info in sorted(infos, key=lambda info: info.offset):
        what = f"tensor {_short(info.name)}"
        if info.name in names:
            raise cursor.error(f"{what} stands there twice")
        names.add(info.name)
        if info.offset % alignment:
            raise cursor.error(f"{what} lies at {info.offset:,}, not a multiple of {alignment}")
        if info.offset < end:
            raise cursor.error(f"{what} overlaps tensor {previous}")
        previous, end = _short(info.name), info.offset + info.n_bytes
        if data_start + end > cursor.size:
            raise cursor.error(
                f"{what} of shape {info.shape} ends at byte {data_start + end:,}, the file has "
                f"{cursor.size:,}; {AGAIN}"
            )


def _short(text: str) -> str:
    """For messages: printable, on one line and not long."""
    return repr(text if len(text) <= 80 else text[:79] + "…")
