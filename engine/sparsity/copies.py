"""Copies of `up` by rows and of `down` by inputs, made when a level needs them and kept on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from loguru import logger
from numpy.typing import NDArray

from engine import packed
from engine.config import DecoderConfig
from engine.formats import Weight
from engine.sparse_formats import SPARSE_FORMATS, Copy, sparse_format
from engine.weights import Weights

VERSION = 2  # changes with the meaning of any byte that sparse_formats/ write

Progress = Callable[[str, float], None]
_Pack = Callable[[Weight], NDArray[np.uint8]]


def can_copy(config: DecoderConfig, weights: Weights) -> bool:
    """Whether all feed-forwards have a format that can be read in part."""
    return all(weights.matrices[name].format in SPARSE_FORMATS for _, name, _ in _parts(config))


def make_copies(
    config: DecoderConfig,
    weights: Weights,
    cache_file: Path | None = None,
    on_progress: Progress | None = None,
    rounded: bool = False,
) -> dict[str, Copy]:
    """The copies of all layers: "layers.{i}.up_rows" (gated models only), "layers.{i}.down_inputs".

    rounded     inputs of `down` in 8 bits anew: faster where most are left out, but not the numbers
                of the packed matrix, which all other copies hold (engine/sparse_formats/int8.py)
    cache_file  what copies are mapped from, written first if it is not there; in memory without
    """
    if cache_file is not None:
        if cache_file.exists():
            try:
                return _from_arrays(packed.open_packed(cache_file))
            except ValueError as error:
                logger.warning("{}; copying again", error)
        try:
            packed.write(cache_file, _entries(config, weights, rounded, on_progress))
            return _from_arrays(packed.open_packed(cache_file))
        except OSError as error:
            logger.warning("cannot keep copies in {}: {}", cache_file.parent, error)
    arrays = {
        entry.name: (np.concatenate(list(entry.chunks())), dict(entry.attributes))
        for entry in _entries(config, weights, rounded, on_progress)
    }
    return _from_arrays(arrays)


def _parts(config: DecoderConfig) -> Iterator[tuple[str, str, str]]:
    """(name of the copy, of its matrix, of the function that makes it)."""
    for i in range(config.n_layers):
        if config.gated:
            yield f"layers.{i}.up_rows", f"layers.{i}.w_up", "pack_rows"
        yield f"layers.{i}.down_inputs", f"layers.{i}.w_down", "pack_inputs"


def _entries(
    config: DecoderConfig, weights: Weights, rounded: bool, on_progress: Progress | None
) -> Iterator[packed.Entry]:
    parts = list(_parts(config))
    for n_done, (name, matrix, function) in enumerate(parts):
        weight = weights.matrices[matrix]
        name_of_format = "int8" if rounded and function == "pack_inputs" else weight.format
        pack = getattr(sparse_format(name_of_format), function)
        shape = _shape(weight, pack, function == "pack_rows")
        attributes = {
            "format": name_of_format, "n_out": weight.n_out, "n_in": weight.n_in, "shape": shape,
        }  # fmt: skip
        chunks = partial(_packed, pack, weight, n_done / len(parts), on_progress)
        yield packed.Entry(name, shape[0] * shape[1], attributes, chunks)


def _shape(weight: Weight, pack: _Pack, by_rows: bool) -> tuple[int, int]:
    """What `pack` will make, by what it makes of a part."""
    n_groups, n_blocks, _ = weight.data.shape
    if by_rows:
        return 32 * -(-n_groups // 2), pack(weight._replace(data=weight.data[:1])).shape[1]
    return n_blocks, pack(weight._replace(data=weight.data[:, :1])).shape[1]


def _packed(
    pack: _Pack, weight: Weight, done: float, on_progress: Progress | None
) -> list[NDArray[np.uint8]]:
    if on_progress:
        on_progress("copying weights", done)
    return [pack(weight).ravel()]


def _from_arrays(arrays) -> dict[str, Copy]:  # type: ignore[no-untyped-def]
    return {
        name: Copy(kept["format"], data.reshape(kept["shape"]), kept["n_out"], kept["n_in"])
        for name, (data, kept) in arrays.items()
    }
