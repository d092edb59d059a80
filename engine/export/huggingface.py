"""Hugging Face directories: config.json, safetensors, tokenizer files, a card.

Tensors are named, fused, turned and their rows ordered as Hugging Face's are, whatever the
checkpoint's were. From a Hugging Face directory all files that are not weights are taken over as
they are.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.architectures import Layout, architecture, layout
from engine.checkpoints._names import by_stored
from engine.checkpoints._parts import as_stored, is_transposed
from engine.export import floats
from engine.export.config_json import config_json, generation_json
from engine.export.source import Source
from engine.export.tokenizer_files import write_tokenizer
from engine.safetensors_shards import SHARD_BYTES, Entry, write_shards
from engine.templates import known_as

# beside weights, config and card; what a directory of a model may have
_TAKEN_OVER = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("tokenizer.model", "vocab.json", "merges.txt", "chat_template.jinja"),
    *("generation_config.json",),
)
Progress = Callable[[str, float], None]


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
    table = architecture(source.config.architecture).TENSORS
    own = layout(source.config.architecture)
    entries = [
        _entry(source, own, stored, parts, number)
        for stored, parts in by_stored(table, source.shapes).items()
    ]
    write_shards(folder, entries, partial(report, "writing weights"), shard_bytes)


def _entry(source: Source, own: Layout, stored: str, parts: list[str], number: str) -> Entry:
    """A tensor of the directory from its canonical parts."""
    shapes = [source.shapes[part] for part in parts]
    shape = (sum(shape[0] for shape in shapes), *shapes[0][1:])
    if is_transposed(parts[0], len(shape), own):
        shape = shape[::-1]
    if parts == ["position_embedding"]:
        shape = (shape[0] + own.first_position, *shape[1:])

    def data() -> NDArray[np.uint8]:
        try:
            return floats.packed(_values(source, parts, own), number)
        except OverflowError as error:
            raise ValueError(f"{stored}: {error}; write f32 or bf16") from None

    return Entry(stored, number, shape, floats.N_BYTES[number] * prod(shape), data)


def _values(source: Source, parts: list[str], own: Layout) -> NDArray[np.float32]:
    stored = source.stored(parts)
    if stored is not None:
        return stored
    values = [source.tensor(part, own.interleaved) for part in parts]
    return as_stored(parts[0], values, own, source.config.head_dim)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
