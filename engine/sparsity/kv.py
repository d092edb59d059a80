"""How much of a long text's keys and values a new token reads: see engine/kernels/skipping.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from engine.kernels.listed import BLOCK
from engine.kernels.skipping import FIRST, RECENT
from engine.kernels.tables import Batch
from engine.sparsity.level_cost import Part
from engine.sparsity.limits import ALIBI

if TYPE_CHECKING:
    from engine.model import Model

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

    def ask(self, batch: Batch, ranges: NDArray[np.uint8]) -> Batch:
        """The batch, its tokens reading no more of the cache; ranges: see engine/key_ranges.py."""
        return batch._replace(n_listed=self.n_blocks, listed_from=self.min_tokens, ranges=ranges)


def describe(model: Model, n_best: int) -> list[Part]:
    """What the latest call, of one token, read of the keys and values."""
    cache, budget = model.cache, model.sparsity.kv
    n_tokens = len(cache.token_ids)
    n_dense = n_tokens * cache.bytes_per_token
    n_blocks = -(-n_tokens // BLOCK)
    if budget is None or n_tokens < budget.min_tokens or budget.n_blocks >= n_blocks:
        return [_whole(n_dense, f"at {n_tokens:,} tokens")]
    if model.config.position == "alibi":
        return [_whole(n_dense, ALIBI)]
    share = budget.n_blocks / n_blocks
    n_read = share * n_dense + cache.key_ranges().n_bytes
    detail = f"{budget.n_blocks} of {n_blocks} blocks, and ranges of all"
    return [Part("keys, values", n_dense, n_read, share, detail, False)]


def _whole(n_bytes: int, detail: str) -> Part:
    return Part("keys, values", n_bytes, n_bytes, 1.0, detail, False)


# SmolLM2-135M, Q4_1, float16 cache; answers of the dense engine to questions about a text of 7,500
# tokens (497 positions behind leads of Wikipedia articles, 522 behind technical prose): KL against
# dense and its standard error, share with the same likeliest token; decoding on 2 threads
# (benchmarks/kv_skipping.py), dense 67 tokens/s at position 7,900 and 120 at 4,000:
#   blocks  leads                   technical prose         speed at 7,900 and 4,000
#       96  .0029 (.0002), 98.8 %   .0044 (.0009), 99.0 %   1.62, 1.08 times
#       64  .0058 (.0005), 98.4 %   .0077 (.0012), 98.3 %   2.05, 1.33 times
BALANCED = KVBudget(96, min_tokens=3072)
FAST = KVBudget(64, min_tokens=2048)
