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


# SmolLM2-135M, Q4_1, float16 cache; answers of the dense engine to questions about a text of 7,900
# tokens (762 positions behind leads of Wikipedia articles, as many behind this project's documents
# and sources): KL against dense, share with the same likeliest token; decoding on 2 threads at
# positions 8,000 and 4,000, with AVX2 and with AVX-512 (benchmarks/kv_skipping.py):
#   blocks  leads          documents, sources  speed, AVX2  AVX-512
#      128  .0010, 99.5 %  .0028, 98.8 %       1.74         1.60
#       96  .0028, 99.1 %  .0153, 96.7 %       1.90, 1.27   1.62, 1.08
#       64  .0044, 98.8 %  .0230, 95.5 %       2.06, 1.42   2.05, 1.33
BALANCED = KVBudget(128, min_tokens=4096)
FAST = KVBudget(64, min_tokens=2048)
