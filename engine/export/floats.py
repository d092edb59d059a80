"""float32 as the bytes of another number."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
KINDS = {"f32": "F32", "f16": "F16", "bf16": "BF16"}  # format: what ggml and safetensors call it
N_BYTES = {"F32": 4, "F16": 2, "BF16": 2}


def packed(values: Floats, kind: str) -> NDArray[np.uint8]:
    """Rounded to the nearest, ties to even; OverflowError where float16 ends."""
    if kind == "F32":
        return np.ascontiguousarray(values).reshape(-1).view(np.uint8)
    if kind == "BF16":
        bits = np.ascontiguousarray(values).reshape(-1).view(np.uint32)
        rounded = bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)
        return (rounded >> 16).astype(np.uint16).view(np.uint8)
    with np.errstate(over="ignore"):
        halves = values.astype(np.float16)
    if not np.isfinite(halves).all():
        raise OverflowError(f"{np.abs(values).max():g} is beyond float16, which ends at 65504")
    return np.ascontiguousarray(halves).reshape(-1).view(np.uint8)
