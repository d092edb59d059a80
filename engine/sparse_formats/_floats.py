"""What the copies of matrices of floats share; `number` is the dtype of one as it is stored."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.formats import Weight
from engine.kernels.layout import unpack_floats
from engine.sparse_formats._numbers import (
    BLOCK,
    as_bytes,
    by_inputs,
    filled,
    input_stride,
    side_by_side,
)


def pack_rows(weight: Weight, number: type[Any]) -> NDArray[np.uint8]:
    """Rows of numbers."""
    return side_by_side(as_bytes(filled(unpack_floats(weight.data, number), BLOCK)))


def pack_inputs(weight: Weight, number: type[Any]) -> NDArray[np.uint8]:
    """Blocks of 32 inputs."""
    return by_inputs(as_bytes(filled(unpack_floats(weight.data, number), BLOCK).T))


def stride(tiles: int, number: type[Any]) -> int:
    """Bytes of an input."""
    return input_stride(BLOCK * tiles * np.dtype(number).itemsize)
