"""Safetensors in one file or in several with an index, written from front to back: of the tensors
only one is in memory."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

SHARD_BYTES = 4_000_000_000  # what old file systems and hubs take in one file


class Entry(NamedTuple):
    """kind: F32, F16 or BF16. data: gives its bytes, n_bytes in all."""

    name: str
    kind: str
    shape: tuple[int, ...]
    n_bytes: int
    data: Callable[[], NDArray[np.uint8]]


def write_shards(
    folder: Path,
    entries: Sequence[Entry],
    on_progress: Callable[[float], None],
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """model.safetensors, or model-00001-of-….safetensors and their index; synced."""
    shards = list(_shards(entries, shard_bytes))
    total = sum(entry.n_bytes for entry in entries)
    weight_map: dict[str, str] = {}
    done = 0
    for i, shard in enumerate(shards, start=1):
        name = f"model-{i:05}-of-{len(shards):05}.safetensors"
        if len(shards) == 1:
            name = "model.safetensors"
        with (folder / name).open("wb") as out:
            out.write(_header(shard))
            for entry in shard:
                on_progress(done / total)
                data = entry.data()
                assert data.size == entry.n_bytes, entry.name
                out.write(data.data)
                done += entry.n_bytes
            out.flush()
            os.fsync(out.fileno())
        weight_map |= {entry.name: name for entry in shard}
    if len(shards) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        text = json.dumps(index, indent=2) + "\n"
        (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")


def _shards(entries: Sequence[Entry], most: int) -> Iterator[list[Entry]]:
    shard: list[Entry] = []
    size = 0
    for entry in entries:
        if shard and size + entry.n_bytes > most:
            yield shard
            shard, size = [], 0
        shard.append(entry)
        size += entry.n_bytes
    yield shard


def _header(shard: Sequence[Entry]) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for entry in shard:
        offsets = [at, at + entry.n_bytes]
        header[entry.name] = {
            "dtype": entry.kind, "shape": list(entry.shape), "data_offsets": offsets,
        }  # fmt: skip
        at += entry.n_bytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
