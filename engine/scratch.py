"""The buffers that the layer loop writes to: made once for the widest batch, reused by all."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.config import DecoderConfig
from engine.kernels import activations, tables
from engine.kernels.attention import SEGMENT
from engine.kernels.head import LOWEST
from engine.kernels.listed import BLOCK
from engine.kernels.partial import ACTIVE_BYTES, RUN_BYTES
from engine.kernels.softmax import partial_bytes
from engine.kernels.tables import Buffers

_PER_TOKEN = (
    *("x", "normed", "blocks", "q", "k", "v", "queries", "attended", "out", "gate", "up"),
)


def padded_size(n: int) -> int:
    """n numbers in whole blocks."""
    return -(-n // 32) * 32


class Scratch:
    """Buffers for the layer loop, made for the widest batch so far; narrower ones are views."""

    def __init__(self, config: DecoderConfig, n_threads: int, low_rank: int = 0) -> None:
        """low_rank: places that an adapter needs for a token."""
        self._config, self._n_threads = config, n_threads
        self._shrunk = np.zeros((0, low_rank), np.float32)
        self._screened: dict[str, NDArray[Any]] = {}
        self._listed = self._listed_buffers(0, 0)
        self._made: Buffers | None = None
        self.n_active = np.zeros((n_threads, config.n_layers, tables.N_SITES), np.int64)
        self._rows = max(tables.TILE_ROWS, config.n_heads // config.n_kv_heads)
        self._partial = partial_bytes(padded_size(config.head_dim)) // 4

    def buffers(
        self, n_tokens: int, n_slots: int, n_screened: int = 0, listed: bool = False
    ) -> Buffers:
        """Buffers for exactly n_tokens, which see n_slots of the cache.

        n_screened  rows of logits that are screened
        listed      whether the tokens read only listed blocks of the cache
        """
        made, n_partials = self._made, self._n_partials(n_tokens, n_slots)
        if made is None or len(made.x) < n_tokens or made.partials.size < n_partials:
            n = n_tokens if made is None else max(n_tokens, len(made.x))
            made = self._made = self._make(n, n_partials)
        views = {name: getattr(made, name)[:n_tokens] for name in _PER_TOKEN}
        if listed:
            self._make_listed(n_tokens, n_slots)
        screened = self._screen_buffers(n_screened)
        shrunk = self._shrunk_rows(n_tokens)
        self.latest = made._replace(**views, **screened, **self._listed, shrunk=shrunk)
        return self.latest

    def _make_listed(self, n_tokens: int, n_slots: int) -> None:
        """Room for the lists of n_tokens."""
        n_blocks, n_rows = self._listed["distances"].shape[1], self._listed["ratings"].shape[0]
        rows = max(n_rows, n_tokens * self._config.n_heads)
        if n_blocks < n_slots // BLOCK + 1 or n_rows < rows:
            # twice what is needed, as for partial results
            self._listed = self._listed_buffers(rows, padded_size(2 * (n_slots // BLOCK + 1)))

    def _listed_buffers(self, rows: int, n_blocks: int) -> dict[str, NDArray[Any]]:
        """rows: one for each head of each token."""
        kv_rows = rows * self._config.n_kv_heads // self._config.n_heads
        return {
            "ratings": np.zeros((rows, n_blocks), np.float32),
            "distances": np.zeros((self._n_threads, n_blocks), np.float32),
            "lists": np.zeros((self._n_threads, kv_rows, n_blocks), np.int64),
            "n_listed": np.zeros((self._n_threads, kv_rows), np.int64),
        }

    def _screen_buffers(self, n: int) -> dict[str, NDArray[Any]]:
        """What a screened head needs for n rows."""
        made = self._screened
        if not made or len(made["turned"]) < n:
            hidden, n_groups = (
                padded_size(self._config.hidden_size),
                -(-self._config.vocab_size // 16),
            )
            made = self._screened = {
                "turned": np.zeros((n, hidden), np.float32),
                "turned_blocks": np.zeros((n, hidden // 32 * activations.BLOCK_BYTES), np.uint8),
                "rest": np.zeros((n, 16 * n_groups), np.float32),
                "groups": np.full((3, n, padded_size(n_groups)), LOWEST, np.float32),
                "best": np.zeros((self._n_threads, tables.SCREENED_BEST), np.float32),
            }
        return made

    def _shrunk_rows(self, n_tokens: int) -> NDArray[np.float32]:
        """What an adapter needs for n_tokens: a row a token, or, of few, that for each thread."""
        n_rows, width = max(n_tokens, tables.FEW * self._n_threads), self._shrunk.shape[1]
        if width and len(self._shrunk) < n_rows:
            self._shrunk = np.zeros((n_rows, width), np.float32)
        return self._shrunk

    def _n_partials(self, n_tokens: int, n_slots: int) -> int:
        n = 2 * self._n_threads * self._rows
        if n_tokens <= tables.FEW:
            # twice what is needed: a text grows, and these would be made anew at each segment
            n = max(n, 2 * -(-n_slots // SEGMENT) * tables.FEW * self._config.n_heads)
        return int(n * self._partial)

    def _make(self, n: int, n_partials: int) -> Buffers:
        config = self._config
        hidden, inner = padded_size(config.hidden_size), padded_size(config.intermediate_size)
        heads = padded_size(config.n_heads * config.head_dim)
        kv_heads = padded_size(config.n_kv_heads * config.head_dim)
        widest = max(hidden, inner, heads) // 32 * activations.BLOCK_BYTES

        def floats(*shape: int) -> NDArray[np.float32]:
            return np.zeros(shape, np.float32)

        return Buffers(
            x=floats(n, hidden),
            normed=floats(n, hidden),
            blocks=np.zeros((n, widest), np.uint8),
            q=floats(n, heads),
            k=floats(n, kv_heads),
            v=floats(n, kv_heads),
            queries=floats(n, config.n_heads, padded_size(config.head_dim)),
            attended=floats(n, heads),
            out=floats(n, hidden),
            gate=floats(n, inner),
            up=floats(n, inner),
            scores=floats(self._n_threads, self._rows, SEGMENT),
            partials=floats(n_partials),
            **self._screen_buffers(0),
            spread=np.zeros(-(-hidden // 128) * RUN_BYTES, np.uint8),
            rows=np.zeros(inner, np.int32),
            active=np.zeros(max(hidden, inner, heads) // 32 * ACTIVE_BYTES, np.uint8),
            n_active=self.n_active,
            **self._listed,
            shrunk=self._shrunk,
            stops=np.zeros(config.n_layers, np.int64),
        )
