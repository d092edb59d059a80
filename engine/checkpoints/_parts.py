"""Stored tensors to canonical ones: rows of a fused tensor, a transposed one, norms with an offset.

Rows are taken as they are stored, quantised ones too; what is transposed must be floats. The way
back is for values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.architectures import Layout
from engine.checkpoints import RawTensor
from engine.checkpoints._kinds import by_name

_DTYPES = {"F32": np.uint32, "F16": np.uint16, "BF16": np.uint16}  # of the bits


def rows_of(tensor: RawTensor, sizes: Sequence[int], index: int, head_dim: int = 0) -> RawTensor:
    """Part number `index` of a tensor whose rows are parts of these sizes, one after another.

    head_dim  > 0: head_dim rows of each part in turn, until all are there
    ValueError when the tensor has not as many rows, or a row's bytes are no whole blocks.
    """
    if not tensor.shape or tensor.shape[0] != sum(sizes):
        raise ValueError(
            f"{tensor.source}: {tensor.name} has shape {tensor.shape}, its config asks for "
            f"{sum(sizes)} rows"
        )
    kind = by_name(tensor.kind)
    if kind is None or (tensor.shape[-1] % kind.n_weights and len(tensor.shape) > 1):
        raise ValueError(f"{tensor.source}: rows of {tensor.name} are no blocks of {tensor.kind}")
    rows = part_of(tensor.data.reshape(tensor.shape[0], -1), sizes, index, head_dim)
    shape = (sizes[index], *tensor.shape[1:])
    return replace(tensor, shape=shape, data=rows.reshape(-1))


def part_of(
    rows: NDArray[Any], sizes: Sequence[int], index: int, head_dim: int = 0
) -> NDArray[Any]:
    """The same of an array whose first axis is the rows."""
    if head_dim:
        rows = rows.reshape(-1, len(sizes), head_dim, *rows.shape[1:])[:, index]
        return np.ascontiguousarray(rows).reshape(sizes[index], *rows.shape[2:])
    start = sum(sizes[:index])
    return np.ascontiguousarray(rows[start : start + sizes[index]])


def joined(parts: Sequence[NDArray[Any]], head_dim: int = 0) -> NDArray[Any]:
    """The array that part_of takes these from."""
    if len(parts) == 1:
        return parts[0]
    if head_dim:
        heads = [part.reshape(-1, head_dim, *part.shape[1:]) for part in parts]
        return np.stack(heads, axis=1).reshape(-1, *parts[0].shape[1:])
    return np.concatenate(parts)


def as_stored(
    name: str, parts: Sequence[NDArray[np.float32]], own: Layout, head_dim: int
) -> NDArray[np.float32]:
    """Values of one tensor of a Hugging Face checkpoint from those of its canonical parts, the
    first of which is `name`."""
    values = joined(parts, head_dim if own.by_head else 0)
    if own.norm_offset and name.endswith("_norm"):
        values = values - np.float32(own.norm_offset)
    if own.first_position and name == "position_embedding":
        values = np.pad(values, ((own.first_position, 0), (0, 0)))
    return values.T if is_transposed(name, values.ndim, own) else values


def is_transposed(name: str, n_dims: int, own: Layout) -> bool:
    """Whether a tensor of a Hugging Face checkpoint is stored by its inputs."""
    return own.transposed and name.startswith("layers.") and n_dims == 2


def transposed(tensor: RawTensor) -> RawTensor:
    """(n_in, n_out) as (n_out, n_in)."""
    if tensor.kind not in _DTYPES or len(tensor.shape) != 2:
        raise ValueError(
            f"{tensor.source}: {tensor.name}, {tensor.kind} of {tensor.shape}, cannot be transposed"
        )
    bits = np.frombuffer(tensor.data, _DTYPES[tensor.kind]).reshape(tensor.shape)
    data = np.ascontiguousarray(bits.T).view(np.uint8).reshape(-1)
    return replace(tensor, shape=tensor.shape[::-1], data=data)


def shifted(tensor: RawTensor, offset: float) -> RawTensor:
    """With offset added to every number, as float32."""
    values = tensor.float32() + np.float32(offset)
    return replace(tensor, kind="F32", data=values.view(np.uint8).reshape(-1))
