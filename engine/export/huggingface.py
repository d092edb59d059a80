"""Hugging Face directories: config.json, safetensors, tokenizer files, a card.

Tensors are named, fused, turned and their rows ordered as Hugging Face's are, whatever the
checkpoint's were. From a Hugging Face directory all files that are not weights are taken over as
they are.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.architectures import Layout, architecture, layout
from engine.checkpoints._names import pattern_of
from engine.checkpoints._parts import as_stored, is_transposed
from engine.export import floats
from engine.export.config_json import config_json, generation_json
from engine.export.source import Source
from engine.export.tokenizer_files import write_tokenizer
from engine.templates import known_as

SHARD_BYTES = 4_000_000_000  # what old file systems and hubs take in one file
# beside weights, config and card; what a directory of a model may have
_TAKEN_OVER = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("tokenizer.model", "vocab.json", "merges.txt", "chat_template.jinja"),
    *("generation_config.json",),
)
Progress = Callable[[str, float], None]


class _Entry(NamedTuple):
    name: str  # Hugging Face's
    parts: list[str]  # canonical
    shape: tuple[int, ...]
    n_bytes: int


def write_files(
    folder: Path,
    source: Source,
    number: str,
    on_progress: Progress | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Everything but the card, into an existing folder. number: F32, F16 or BF16."""
    report = on_progress or (lambda stage, fraction: None)
    keys, checkpoint = config_json(source, number), source.checkpoint
    if checkpoint.chat_template is None:  # the name tells which one is to be used
        keys = {"_name_or_path": known_as(checkpoint.path, checkpoint.config), **keys}
    _write_json(folder / "config.json", keys)
    own = source.checkpoint.path
    if (own / "config.json").is_file():
        for name in _TAKEN_OVER:
            if (own / name).is_file():
                shutil.copyfile(own / name, folder / name)
    else:
        _write_json(folder / "generation_config.json", generation_json(source.checkpoint))
        write_tokenizer(folder, source.checkpoint)
    _write_weights(folder, source, number, shard_bytes, report)


def default_number(source: Source) -> str:
    """What most of a checkpoint's floats are; F16 for one whose weights are quantised."""
    kind = source.checkpoint.tensor("layers.0.wq").kind
    return kind if kind in floats.N_BYTES else "F16"


def _write_weights(
    folder: Path, source: Source, number: str, shard_bytes: int, report: Progress
) -> None:
    own = layout(source.config.architecture)
    entries = _entries(source, own, number)
    shards = list(_shards(entries, shard_bytes))
    weight_map: dict[str, str] = {}
    done = 0
    for i, shard in enumerate(shards, start=1):
        file = f"model-{i:05}-of-{len(shards):05}.safetensors"
        if len(shards) == 1:
            file = "model.safetensors"
        with (folder / file).open("wb") as out:
            out.write(_header(shard, number))
            for entry in shard:
                report("writing weights", done / len(entries))
                values = _values(source, entry, own)
                try:
                    out.write(floats.packed(values, number).data)
                except OverflowError as error:
                    raise ValueError(f"{entry.name}: {error}; write f32 or bf16") from None
                done += 1
        weight_map |= {entry.name: file for entry in shard}
    if len(shards) > 1:
        total = sum(entry.n_bytes for entry in entries)
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        _write_json(folder / "model.safetensors.index.json", index)


def _entries(source: Source, own: Layout, number: str) -> list[_Entry]:
    table = architecture(source.config.architecture).TENSORS
    groups: dict[str, list[str]] = {}
    for name in source.shapes:
        layer = name.split(".")[1] if name.startswith("layers.") else ""
        groups.setdefault(table[pattern_of(name)].replace("{i}", layer), []).append(name)
    entries = []
    for stored, parts in groups.items():
        shapes = [source.shapes[part] for part in parts]
        shape = (sum(shape[0] for shape in shapes), *shapes[0][1:])
        if is_transposed(parts[0], len(shape), own):
            shape = shape[::-1]
        if parts == ["position_embedding"]:
            shape = (shape[0] + own.first_position, *shape[1:])
        n_bytes = floats.N_BYTES[number] * prod(shape)
        entries.append(_Entry(stored, parts, shape, n_bytes))
    return entries


def _values(source: Source, entry: _Entry, own: Layout) -> NDArray[np.float32]:
    stored = source.stored(entry.parts)
    if stored is not None:
        return stored
    parts = [source.tensor(part, own.interleaved) for part in entry.parts]
    return as_stored(entry.parts[0], parts, own, source.config.head_dim)


def _shards(entries: list[_Entry], most: int) -> Iterator[list[_Entry]]:
    shard: list[_Entry] = []
    for entry in entries:
        if shard and sum(other.n_bytes for other in shard) + entry.n_bytes > most:
            yield shard
            shard = []
        shard.append(entry)
    yield shard


def _header(shard: list[_Entry], number: str) -> bytes:
    """Of a safetensors file: its length, and where each tensor lies behind it."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for entry in shard:
        offsets = [at, at + entry.n_bytes]
        header[entry.name] = {"dtype": number, "shape": entry.shape, "data_offsets": offsets}
        at += entry.n_bytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
