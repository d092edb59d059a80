"""From a checkpoint's tensors to the packed weights that kernels read, through a cache on disk.

Packing happens once a checkpoint, format and layout; a second start maps what the first left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from loguru import logger
from numpy.typing import NDArray

from engine import packed
from engine.checkpoints import Checkpoint, RawTensor
from engine.config import DecoderConfig
from engine.formats import Weight, format_for, require_format, weight_format
from engine.kernels.layout import ROWS, blocks, groups
from engine.shapes import matrix_shapes, vector_shapes

LAYOUT_VERSION = 2  # changes with the meaning of any byte that formats/ write
_SLAB = 256 * ROWS  # rows that are dequantised at a time

Progress = Callable[[str, float], None]  # stage, fraction done in [0, 1]


class Weights(NamedTuple):
    """Read-only arrays, mapped from the packed file or, without a cache, in memory."""

    matrices: dict[str, Weight]
    vectors: dict[str, NDArray[np.float32]]  # norms and biases, padded with zeros to 32

    @property
    def n_bytes(self) -> int:
        """Bytes of all arrays; a token reads them all, but only one row of an untied embedding."""
        matrices = sum(weight.data.nbytes for weight in self.matrices.values())
        return matrices + sum(vector.nbytes for vector in self.vectors.values())


def load_weights(
    checkpoint: Checkpoint,
    config: DecoderConfig,
    name: str | None,
    cache_file: Path | None,
    on_progress: Progress | None = None,
) -> Weights:
    """Map the cached packed weights, or pack them first.

    name is a weight format or None for as stored; cache_file None packs in memory. ValueError for a
    missing tensor, a wrong shape, or values that are not finite.
    """
    if cache_file is not None and cache_file.exists():
        try:
            return _from_arrays(packed.open_packed(cache_file))
        except ValueError as error:
            logger.warning("{}; packing again", error)
    entries = list(_entries(checkpoint, config, name, on_progress))
    if cache_file is not None:
        try:
            packed.write(cache_file, entries)
            return _from_arrays(packed.open_packed(cache_file))
        except OSError as error:
            logger.warning("cannot keep packed weights in {}: {}", cache_file.parent, error)
    arrays = {
        e.name: (np.concatenate([c.ravel() for c in e.chunks()]), e.attributes) for e in entries
    }
    return _from_arrays(arrays)


def _from_arrays(arrays) -> Weights:  # type: ignore[no-untyped-def]
    matrices, vectors = {}, {}
    for name, (data, attributes) in arrays.items():
        if "format" in attributes:
            n_out, n_in = attributes["n_out"], attributes["n_in"]
            shape = (groups(n_out), blocks(n_in), -1)
            matrices[name] = Weight(attributes["format"], data.reshape(shape), n_out, n_in)
        else:
            vectors[name] = data.view(np.float32)
    return Weights(matrices, vectors)


def _entries(
    checkpoint: Checkpoint, config: DecoderConfig, name: str | None, on_progress: Progress | None
) -> Iterator[packed.Entry]:
    """One packed.Entry per tensor, shapes checked; values are checked as they are packed."""
    matrices, vectors = matrix_shapes(config), vector_shapes(config)
    n_done, n_all = 0, len(matrices)

    def chunks(tensor_name: str, format_name: str) -> Iterator[NDArray[np.uint8]]:
        nonlocal n_done
        if on_progress:
            on_progress("packing weights", n_done / n_all)
        n_done += 1
        # asked for again: parts of fused tensors are copies, and all of them would be in memory
        tensor = checkpoint.tensor(tensor_name)
        for start in range(0, tensor.shape[0], _SLAB):
            stop = min(start + _SLAB, tensor.shape[0])
            check_finite(checkpoint, tensor.name, tensor.float32(start, stop))
            yield weight_format(format_name).pack(tensor, start, stop)
            tensor.release()  # or the whole file would stay in memory beside the packed one

    for tensor_name, (n_out, n_in) in matrices.items():
        tensor = checked_tensor(checkpoint, tensor_name, (n_out, n_in))
        format_name = _format_of(tensor_name, tensor, name)
        n_bytes = groups(n_out) * blocks(n_in) * weight_format(format_name).BLOCK_BYTES
        attributes = {"format": format_name, "n_out": n_out, "n_in": n_in}
        yield packed.Entry(
            tensor_name, n_bytes, attributes, partial(chunks, tensor_name, format_name)
        )
    for tensor_name, size in vectors.items():
        tensor = checked_tensor(checkpoint, tensor_name, (size,))
        values = np.zeros(blocks(size) * 32, np.float32)
        values[:size] = tensor.float32()
        check_finite(checkpoint, tensor_name, values)
        yield packed.Entry(tensor_name, values.nbytes, {}, partial(_whole, values))


def _whole(values: NDArray[np.float32]) -> list[NDArray[np.uint8]]:
    return [values.view(np.uint8)]


def _format_of(tensor_name: str, tensor: RawTensor, wanted: str | None) -> str:
    """The format to pack a matrix in."""
    if wanted is None:
        return format_for(tensor.kind)
    require_format(wanted)
    if wanted in ("q4", "q4_0") and tensor_name in ("embedding", "head"):
        return "q8"  # 4 bits cost most where each row is a token
    return wanted


def checked_tensor(checkpoint: Checkpoint, name: str, shape: tuple[int, ...]) -> RawTensor:
    """ValueError where it is missing or of another shape."""
    tensor = checkpoint.tensor(name)
    if tensor.shape != shape:
        raise ValueError(
            f"{checkpoint.path.name}: {tensor.name} has shape {tensor.shape}, "
            f"its config asks for {shape}"
        )
    return tensor


def check_finite(checkpoint: Checkpoint, name: str, values: NDArray[np.float32]) -> None:
    """ValueError for NaN and infinity."""
    if not np.isfinite(values).all():
        kind = "NaN" if np.isnan(values).any() else "infinite"
        raise ValueError(
            f"{checkpoint.path.name}: {name} holds {kind} values; the file is damaged, get it again"
        )
