"""Rows of wq and wk in two orders.

The rotation pairs dimension i of a head with i + head_dim / 2 in Hugging Face's files, and with
its neighbour in GGUF files of some families, whose converter moved the rows to where that gives the
same. Works on any array whose first axis is those rows: weights, biases, the B of an adapter.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.config import DecoderConfig


def n_heads_of(name: str, config: DecoderConfig) -> int:
    """Heads in the rows of a canonical tensor whose rows stand in another order in GGUF; else 0."""
    kind = name.removesuffix(".bias").rpartition(".")[2]
    return {"wq": config.n_heads, "wk": config.n_kv_heads}.get(kind, 0)


def interleaved(rows: NDArray[Any], n_heads: int) -> NDArray[Any]:
    """Hugging Face's order → neighbours are pairs."""
    halves = rows.reshape(n_heads, 2, -1, *rows.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(rows.shape)


def in_halves(rows: NDArray[Any], n_heads: int) -> NDArray[Any]:
    """Neighbours are pairs → Hugging Face's order."""
    pairs = rows.reshape(n_heads, -1, 2, *rows.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(rows.shape)


def require_whole_rotation(config: DecoderConfig) -> None:
    """ValueError where rows are interleaved, but not all of a head's dimensions are rotated: which
    of its rows were moved cannot be known."""
    if config.rope.interleaved and config.rotary_dim != config.head_dim:
        raise ValueError(
            f"{config.rotary_dim} of {config.head_dim} dimensions of a head are rotated, in pairs "
            "of neighbours; rows of such a GGUF file are not brought into Hugging Face's order"
        )
