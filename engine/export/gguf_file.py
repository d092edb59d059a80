"""The bytes of a GGUF file (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md), version 3,
written from front to back: nothing but one tensor is in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from struct import pack
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

ALIGNMENT = 32
_U32, _I32, _F32, _BOOL, _STRING, _ARRAY = 4, 5, 6, 7, 8, 9
TYPE_IDS = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 8, "BF16": 30}


class Entry(NamedTuple):
    """A tensor to come: `data` gives its bytes, n_bytes in all."""

    name: str
    shape: tuple[int, ...]  # NumPy's order
    type_id: int
    n_bytes: int
    data: Callable[[], NDArray[np.uint8]]


def encoded(key: str, value: Any) -> bytes:
    """A key and its value: bool, int (uint32), float (float32), str, bytes (as an array of uint8),
    or a list of str, int (int32) or float."""
    return _text(key) + _value(value)


def write(
    out: BinaryIO,
    keys: Mapping[str, bytes],
    tensors: Iterable[Entry],
    on_progress: Callable[[float], None],
) -> None:
    """keys: key -> what `encoded` gives for it."""
    tensors = list(tensors)
    out.write(b"GGUF" + pack("<IQQ", 3, len(tensors), len(keys)))
    for key in keys.values():
        out.write(key)
    at = 0
    for tensor in tensors:
        shape = tensor.shape[::-1]  # GGUF counts from the fastest dimension
        out.write(_text(tensor.name) + pack(f"<I{len(shape)}Q", len(shape), *shape))
        out.write(pack("<IQ", tensor.type_id, at))
        at += _aligned(tensor.n_bytes)
    out.write(b"\0" * (_aligned(out.tell()) - out.tell()))
    for i, tensor in enumerate(tensors):
        on_progress(i / len(tensors))
        data = tensor.data()
        assert data.size == tensor.n_bytes, tensor.name
        out.write(data.data)
        out.write(b"\0" * (_aligned(data.size) - data.size))


def _aligned(n: int) -> int:
    return -(-n // ALIGNMENT) * ALIGNMENT


def _text(text: str) -> bytes:
    data = text.encode()
    return pack("<Q", len(data)) + data


def _value(value: Any) -> bytes:
    if isinstance(value, bool):
        return pack("<I?", _BOOL, value)
    if isinstance(value, int):
        return pack("<II", _U32, value)
    if isinstance(value, float):
        return pack("<If", _F32, value)
    if isinstance(value, str):
        return pack("<I", _STRING) + _text(value)
    return pack("<I", _ARRAY) + _items(value)


def _items(values: Sequence[Any] | bytes) -> bytes:
    if isinstance(values, bytes):
        return pack("<IQ", 0, len(values)) + values
    kind = type(values[0]) if values else str
    if kind is str:
        return pack("<IQ", _STRING, len(values)) + b"".join(map(_text, values))
    code = "i" if kind is int else "f"
    type_id = _I32 if kind is int else _F32
    return pack("<IQ", type_id, len(values)) + pack(f"<{len(values)}{code}", *values)
