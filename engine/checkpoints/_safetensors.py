"""One safetensors file, mapped (https://huggingface.co/docs/safetensors: 8 bytes of header length,
a JSON header, the data). The header is bounded and checked against the file's size."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.checkpoints import RawTensor
from engine.checkpoints._json import parse_object
from engine.checkpoints._mapped import map_file

MAX_HEADER_BYTES = 16 << 20  # a hundred thousand tensors
MAX_DIMS = 8
N_BYTES = {"F32": 4, "F16": 2, "BF16": 2}  # the dtypes that are read
AGAIN = "download the file again"


def read_safetensors(path: Path) -> dict[str, RawTensor]:
    """Tensors by name. Those of a dtype that is not read are listed, their float32() fails.

    ValueError when the header lies about the file.
    """
    size = path.stat().st_size
    if size < 8:
        raise ValueError(f"{path}: {size} bytes, a safetensors file has at least 8; {AGAIN}")
    data = map_file(path)
    n_header = int.from_bytes(data[:8], "little")
    if n_header > min(MAX_HEADER_BYTES, size - 8):
        raise ValueError(
            f"{path}: claims a header of {n_header:,} bytes; at most {MAX_HEADER_BYTES:,} are "
            f"allowed and the file has {size:,}; {AGAIN}"
        )
    try:
        text = str(data[8 : 8 + n_header], "utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: the header is not UTF-8; {AGAIN}") from None
    header = parse_object(text, f"{path}: header", unique_keys=True)
    header.pop("__metadata__", None)
    payload = np.frombuffer(data, dtype=np.uint8)[8 + n_header :]
    tensors, end, previous = {}, 0, ""
    for name, entry in sorted(header.items(), key=_begin):
        what = f"{path}: tensor {name[:80]!r}"
        start, stop = _span(entry, len(payload), what)
        if start < end:
            raise ValueError(f"{what} overlaps tensor {previous[:80]!r}")
        previous, end = name, max(end, stop)
        tensors[name] = _tensor(name, entry, payload[start:stop], path)
    return tensors


def _begin(item: tuple[str, Any]) -> int:
    """Sort key; malformed entries come first and are refused when they are read."""
    try:
        return int(item[1]["data_offsets"][0])
    except (TypeError, KeyError, IndexError, ValueError, OverflowError):
        return -1


def _span(entry: Any, n_payload: int, what: str) -> tuple[int, int]:
    offsets: Any = entry.get("data_offsets") if isinstance(entry, dict) else None
    if not _is_sizes(offsets) or len(offsets) != 2:
        raise ValueError(f"{what} has no data_offsets of two whole numbers")
    start, stop = offsets
    if not start <= stop <= n_payload:
        raise ValueError(f"{what} lies at {start:,} to {stop:,} of {n_payload:,} bytes; {AGAIN}")
    return start, stop


def _is_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 1 << 48 for n in value)


def _tensor(name: str, entry: Any, data: npt.NDArray[np.uint8], path: Path) -> RawTensor:
    what = f"{path}: tensor {name[:80]!r}"
    shape, dtype = entry.get("shape"), entry.get("dtype")
    if not _is_sizes(shape) or len(shape) > MAX_DIMS:
        raise ValueError(f"{what} has no shape of at most {MAX_DIMS} whole numbers")
    if not isinstance(dtype, str):
        raise ValueError(f"{what} has no dtype")
    if dtype in N_BYTES and prod(shape) * N_BYTES[dtype] != len(data):
        raise ValueError(
            f"{what} of shape {tuple(shape)} in {dtype} has {len(data):,} bytes instead of "
            f"{prod(shape) * N_BYTES[dtype]:,}"
        )
    return RawTensor(name, tuple(shape), dtype, data, str(path))
