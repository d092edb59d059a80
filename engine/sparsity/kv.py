"""How much of a long text's keys and values a new token reads: see engine/kernels/skipping.py."""

from __future__ import annotations

from dataclasses import dataclass

from engine.kernels.skipping import FIRST, RECENT

MIN_BLOCKS = FIRST + RECENT + 1


@dataclass(frozen=True)
class KVBudget:
    """For each layer, kv head and token.

    n_blocks    blocks of 16 slots that are read, the first and the last ones included
    min_tokens  shorter texts are read whole
    """

    n_blocks: int
    min_tokens: int = 1024

    def __post_init__(self) -> None:
        if self.n_blocks < MIN_BLOCKS:
            raise ValueError(f"n_blocks must be at least {MIN_BLOCKS}, got {self.n_blocks}")
