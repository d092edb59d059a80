"""Copies of `up` by rows and of other matrices by inputs, made when a level needs them and kept on
disk."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
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
_BLOCK = 32  # inputs that share a header

UP, DOWN, WO = "up_rows", "down_inputs", "wo_inputs"
QKV = ("wq_inputs", "wk_inputs", "wv_inputs")
# kind of a copy -> its matrix, the function that makes it
_KINDS = {
    UP: ("w_up", "pack_rows"),
    DOWN: ("w_down", "pack_inputs"),
    "wq_inputs": ("wq", "pack_inputs"),
    "wk_inputs": ("wk", "pack_inputs"),
    "wv_inputs": ("wv", "pack_inputs"),
    WO: ("wo", "pack_inputs"),
}

Progress = Callable[[str, float], None]
_Pack = Callable[[Weight], NDArray[np.uint8]]


def feed_forwards(config: DecoderConfig) -> list[str]:
    """Names of the copies that feed-forwards are read in part from, in gated models with `up`."""
    kinds = (UP, DOWN) if config.gated else (DOWN,)
    return [f"layers.{i}.{kind}" for i in range(config.n_layers) for kind in kinds]


def projections(config: DecoderConfig) -> list[str]:
    """The same of q, k, v and o."""
    return [f"layers.{i}.{kind}" for i in range(config.n_layers) for kind in (*QKV, WO)]


def can_copy(config: DecoderConfig, weights: Weights, names: Collection[str] | None = None) -> bool:
    """Whether the matrices of these copies, see make_copies, can be read in part."""
    names = feed_forwards(config) if names is None else names
    return all(weights.matrices[matrix_of(name)].format in SPARSE_FORMATS for name in names)


def matrix_of(name: str) -> str:
    """The matrix that a copy is made of."""
    layer, _, kind = name.rpartition(".")
    return f"{layer}.{_KINDS[kind][0]}"


def make_copies(
    config: DecoderConfig,
    weights: Weights,
    cache_file: Path | None = None,
    on_progress: Progress | None = None,
    rounded: bool = False,
    names: Sequence[str] | None = None,
) -> dict[str, Copy]:
    """The copies "layers.{i}.{kind}", kind one of UP, DOWN, QKV and WO.

    names       None: those of feed_forwards
    rounded     inputs of `down` in 8 bits anew: faster where most are left out, but not the numbers
                of the packed matrix, which all other copies hold (engine/sparse_formats/int8.py)
    cache_file  what copies are mapped from, written first where one is not in it, with those that
                are; in memory without
    """
    names = feed_forwards(config) if names is None else names
    if cache_file is None:
        return _in_memory(weights, names, rounded, on_progress)
    found: dict[str, Copy] = {}
    if cache_file.exists():
        try:
            found = _from_arrays(packed.open_packed(cache_file))
        except ValueError as error:
            logger.warning("{}; copying again", error)
    if not found.keys() >= set(names):
        try:
            wanted = list(dict.fromkeys([*found, *names]))
            packed.write(cache_file, _entries(weights, wanted, rounded, on_progress))
            found = _from_arrays(packed.open_packed(cache_file))
        except OSError as error:
            logger.warning("cannot keep copies in {}: {}", cache_file.parent, error)
            return _in_memory(weights, names, rounded, on_progress)
    return {name: found[name] for name in names}


def _in_memory(
    weights: Weights, names: Sequence[str], rounded: bool, on_progress: Progress | None
) -> dict[str, Copy]:
    return _from_arrays(
        {
            entry.name: (np.concatenate(list(entry.chunks())), dict(entry.attributes))
            for entry in _entries(weights, names, rounded, on_progress)
        }
    )


def _entries(
    weights: Weights, names: Sequence[str], rounded: bool, on_progress: Progress | None
) -> Iterator[packed.Entry]:
    for n_done, name in enumerate(names):
        weight, kind = weights.matrices[matrix_of(name)], name.rpartition(".")[2]
        name_of_format = "int8" if rounded and kind == DOWN else weight.format
        pack = getattr(sparse_format(name_of_format), _KINDS[kind][1])
        shape = _shape(weight, pack, kind == UP)
        attributes = {
            "format": name_of_format, "n_out": weight.n_out, "n_in": weight.n_in, "shape": shape,
        }  # fmt: skip
        chunks = partial(_packed, pack, weight, n_done / len(names), on_progress)
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


def bytes_read(weight: Weight, kind: str, active: float) -> float:
    """What a token is expected to read of a copy when this share of its rows or inputs is active,
    each as likely as any other."""
    module = sparse_format(weight.format)
    n, size = _shape(weight, getattr(module, _KINDS[kind][1]), kind == UP)
    if kind == UP:
        return active * weight.n_out * size
    inputs = _BLOCK * module.stride(-(-weight.n_out // _BLOCK))
    return float(n * (active * inputs + (1 - (1 - active) ** _BLOCK) * (size - inputs)))
