"""How a matrix is cut into 16 x 32 blocks, in NumPy: what the formats' packing shares."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

ROWS, COLUMNS = 16, 32  # of a block


class StoredTensor(Protocol):
    """What packing asks of a checkpoint's tensor (engine.checkpoints.RawTensor)."""

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def kind(self) -> str: ...
    @property
    def data(self) -> NDArray[np.uint8]: ...

    def float32(self, start: int = 0, stop: int | None = None) -> NDArray[np.float32]:
        """Rows [start, stop), dequantised."""


def groups(n_out: int) -> int:
    """How many groups of rows hold n_out rows."""
    return -(-n_out // ROWS)


def blocks(n_in: int) -> int:
    """How many blocks of columns hold n_in columns."""
    return -(-n_in // COLUMNS)


def padded(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows filled up to whole groups and columns to whole blocks, with zeros."""
    n_out, n_in = values.shape
    full = (groups(n_out) * ROWS, blocks(n_in) * COLUMNS)
    if values.shape == full:
        return values
    out = np.zeros(full, np.float32)
    out[:n_out, :n_in] = values
    return out


def stored_blocks(tensor: StoredTensor, start: int, stop: int, n_bytes: int) -> NDArray[np.uint8]:
    """The bytes of rows [start, stop) of a block-quantised tensor: (16 groups, blocks, n_bytes).

    The rows are filled up to whole groups with zero blocks, whose value is zero in every kind.
    """
    n_blocks = tensor.shape[1] // COLUMNS
    row_bytes = n_blocks * n_bytes
    rows = tensor.data[start * row_bytes : stop * row_bytes].reshape(
        stop - start, n_blocks, n_bytes
    )
    missing = groups(stop - start) * ROWS - (stop - start)
    return np.pad(rows, ((0, missing), (0, 0), (0, 0))) if missing else rows


def by_lane(values: NDArray[np.generic]) -> NDArray[np.generic]:
    """A number a row and block, (16 groups, blocks) -> a vector a block, (groups, blocks, 16)."""
    n_rows, n_blocks = values.shape
    return np.ascontiguousarray(values.reshape(n_rows // ROWS, ROWS, n_blocks).transpose(0, 2, 1))


def pack_floats(stored: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Floats of any width (16 a, 32 b) -> blocks [32 columns][16 rows], as bytes (a, b, …)."""
    n_groups, n_blocks = stored.shape[0] // ROWS, stored.shape[1] // COLUMNS
    columns = stored.reshape(n_groups, ROWS, n_blocks, COLUMNS).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(columns).view(np.uint8).reshape(n_groups, n_blocks, -1)


def unpack_floats(packed: NDArray[np.uint8], dtype: type[Any]) -> NDArray[Any]:
    """The inverse of pack_floats: bytes (a, b, …) -> (16 a, 32 b) of dtype."""
    n_groups, n_blocks, _ = packed.shape
    columns = packed.view(dtype).reshape(n_groups, n_blocks, COLUMNS, ROWS)
    rows = columns.transpose(0, 3, 1, 2).reshape(n_groups * ROWS, n_blocks * COLUMNS)
    return np.ascontiguousarray(rows)
