"""The decoder: token ids in, logits out, with the cache growing by what it has seen.

Owns shapes, scratch and threads; all arithmetic is in engine/kernels.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.cache import KVCache
from engine.cancel import Cancel, Cancelled
from engine.config import DecoderConfig
from engine.kernels.activations import BLOCK_BYTES
from engine.kernels.forward import dense_head, forward
from engine.kernels.layout import ROWS
from engine.kernels.tables import FEW, N_SITES, Batch
from engine.kv_formats import DEFAULT, kv_format, listed_kernels
from engine.low_rank import LowRank
from engine.plan import Rotations, make_plan, make_tables, make_windows
from engine.scratch import Scratch, padded_size
from engine.screen import Screen
from engine.sparse_formats import Sparse
from engine.sparsity.kv import KVBudget
from engine.threads import Pace, Team
from engine.weights import Weights

# Tokens of a prompt in one call: enough that reading weights costs little beside the arithmetic,
# few enough that a call ends soon after it is cancelled
CHUNK = 128
_NO_RANGES = np.empty((0, 0, 0, 0), np.uint8)


class Branches(NamedTuple):
    """Where the tokens of one step of a search go: one row a beam."""

    slots: Sequence[int]  # the cache slot that each token is written to
    paths: Sequence[Sequence[int]]  # the slots after the shared prefix that it sees, its own last


class Probe(NamedTuple):
    """What Decoder.probe saw, float32.

    logits   (T or 0, vocab_size)
    neurons  (n_layers, 2, R, intermediate): the gates' activations, and the products, of the last
             R tokens
    inputs   (n_layers, 2, R, widest): of q, k and v; of o. Zeros behind
    """

    logits: NDArray[np.float32]
    neurons: NDArray[np.float32]
    inputs: NDArray[np.float32]


@dataclass
class Decoder:
    """One model's weights, ready to run."""

    config: DecoderConfig
    weights: Weights
    team: Team
    kv_format: str = DEFAULT

    def __post_init__(self) -> None:
        self._plan = make_plan(self.config, self.weights, kv_format(self.kv_format))
        self._screen: Screen | None = None
        self._low_rank: LowRank | None = None
        n = self.config.n_layers
        self._sparse = self._dense = Sparse(
            np.zeros((n, N_SITES), np.float32),
            np.zeros(n, np.int64),
            np.zeros((n, 2), np.int64),
            {},
        )
        self._ones = np.ones((n, padded_size(self.config.intermediate_size)), np.float32)
        self._importance = self._ones
        self._kv_budget: KVBudget | None = None
        self._windows = make_windows(self.config)
        self._rotations = Rotations(self.config)
        self._logits = self._logits_rows(1)
        self._proofs = self._logits_rows(0)
        self._never = Cancel()
        self._no_record = np.zeros((0, 0), np.float32)
        self._follow_team()
        self._make_tables()

    def set_threads(self, n_threads: int) -> None:
        """Compute on n_threads at most from the next call on; ValueError outside Team's bounds."""
        if n_threads != self.team.n_threads:
            self.team.resize(n_threads)
            self._follow_team()

    def use_screen(self, screen: Screen | None) -> None:
        """From the next call on, let calls that need only the best logits compute only those; None:
        all logits, always."""
        self._screen = screen
        self._make_tables()

    def use_thresholds(self, sparse: Sparse | None) -> None:
        """From the next call on, single tokens leave out what is below; None = nothing is.

        Calls of several tokens, prompts, beams and drafts, stay dense.
        """
        self._sparse = sparse or self._dense
        self._importance = self._padded(sparse and sparse.importance)
        self._make_tables()
        self._scratch.n_active[:] = 0

    def use_adapter(self, low_rank: LowRank | None) -> None:
        """From the next call on, add what the adapter gives to every product that it is for; None:
        the weights alone. Where use_thresholds leaves parts of a feed-forward out, it adds nothing.
        """
        self._low_rank = low_rank
        self._make_tables()
        self._follow_team()

    @property
    def sparse(self) -> Sparse | None:
        """What use_thresholds was given."""
        return None if self._sparse is self._dense else self._sparse

    @property
    def n_active(self) -> NDArray[np.int64]:
        """Rows and inputs that were read since use_thresholds, (n_layers, N_SITES)."""
        total: NDArray[np.int64] = self._scratch.n_active.sum(axis=0)
        return total

    def use_kv_budget(self, budget: KVBudget | None) -> None:
        """From the next call on, let calls of FEW tokens skip what the budget leaves out.

        None = all keys and values are read, always, as they are where ALiBi gives positions, in
        layers with a sliding window, in longer calls and in branch.
        """
        if budget is not None:
            attend = listed_kernels(self.kv_format).attend.address
            self._plan = self._plan._replace(attend_listed=attend)
        self._kv_budget = budget

    def _make_tables(self) -> None:
        parts = self._screen, self._sparse.copies, self._low_rank
        self._tables = make_tables(self.config, self.weights, *parts)

    def _follow_team(self) -> None:
        """What depends on the number of threads, and on the rank of an adapter."""
        n = self.team.n_threads
        self._scratch = Scratch(self.config, n, self._low_rank.width if self._low_rank else 0)
        self._pace = Pace(n)

    def new_cache(self) -> KVCache:
        """An empty cache for this decoder."""
        return KVCache(self.config, self.kv_format)

    def extend(
        self,
        cache: KVCache,
        token_ids: Sequence[int],
        *,
        coarse: int = 0,
        all_logits: bool = False,
        n_best: int = 0,
        cancel: Cancel | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> NDArray[np.float32]:
        """Run token_ids after those in the cache, the first `coarse` ones quicker but less exactly.

        Returns the logits after the last token, (1, vocab_size) float32, or after each with
        all_logits, (T, vocab_size). The array is overwritten by the next call. n_best > 0 says that
        only so many of the largest matter: with a screen (use_screen) the others are estimates, and
        none of them is among the largest. Raises Cancelled; the chunks that were complete stay in
        the cache.
        """
        total, n_new = len(cache.token_ids) + len(token_ids), len(token_ids)
        if cache.is_long != (long := self._rotations.is_long(total)):
            # the text has grown into other angles, or back: keys that were turned by them are lost
            token_ids, coarse = [*cache.token_ids, *token_ids], 0
            cache.truncate(0)
            cache.is_long = long
        cache.reserve(total)
        can_skip = len(token_ids) <= FEW and self.config.position != "alibi"
        budget = self._kv_budget if can_skip else None
        rows = []
        start = 0
        while start < len(token_ids):
            end = coarse if start < coarse else len(token_ids)
            chunk = token_ids[start : min(start + CHUNK, end)]
            last = start + len(chunk) == len(token_ids)
            positions = np.arange(len(cache.token_ids), len(cache.token_ids) + len(chunk))
            batch = self._batch(chunk, positions, positions, positions + 1, None, total)
            batch = batch._replace(coarse=int(start < coarse))
            if budget is not None and total >= budget.min_tokens:
                batch = budget.ask(batch, cache.key_ranges().data)
            self._note_skips(cache, batch)
            n_logits = len(chunk) if all_logits else int(last)
            logits = self._run(cache, batch, n_logits, n_best, cancel)
            cache.token_ids.extend(chunk)
            if all_logits:
                rows.append(logits.copy())
            start += len(chunk)
            if on_progress:
                on_progress(start, len(token_ids))
        return np.concatenate(rows)[-n_new:] if all_logits else logits

    def states(self, n: int) -> NDArray[np.float32]:
        """What the head was multiplied with for the last n logits of the latest call, at most a
        chunk: (n, hidden_size) float32, a copy."""
        normed = self._scratch.latest.normed
        return normed[len(normed) - n :, : self.config.hidden_size].copy()

    def head(self, states: NDArray[np.float32]) -> NDArray[np.float32]:
        """All logits of states (n, hidden_size), (n, vocab_size) float32: the bits that extend
        gives without a screen. The array is overwritten by the next call."""
        x = np.zeros((len(states), padded_size(self.config.hidden_size)), np.float32)
        x[:, : states.shape[1]] = states
        blocks = np.empty((len(x), x.shape[1] // 32 * BLOCK_BYTES), np.uint8)
        if len(self._proofs) < len(x):
            self._proofs = self._logits_rows(len(x))  # kept: fresh pages cost more than the product
        logits, tables = self._proofs[: len(x)], self._tables
        arguments = self._plan, tables.matrices, x, blocks, logits
        self.team.run(dense_head, self._pace.n_threads, arguments, self._never.cell)
        return self._scaled(logits[:, : self.config.vocab_size])

    def can_screen(self, n_best: int) -> bool:
        """Whether a call of one token that needs n_best logits is screened."""
        return self._screened_best(1, n_best) > 0

    def screened(self, n_best: int) -> NDArray[np.float32] | None:
        """What the screen said of the head's groups in the latest call, for the first of its
        logits: float32 (3, groups), at most, likely, and exactly where that was computed at once.
        None where a call for n_best logits has no screen."""
        if not self._screened_best(1, n_best):
            return None
        return self._scratch.latest.groups[:, 0, : -(-self.config.vocab_size // ROWS)]

    def branch(
        self,
        cache: KVCache,
        token_ids: Sequence[int],
        branches: Branches,
        n_best: int = 0,
        cancel: Cancel | None = None,
    ) -> NDArray[np.float32]:
        """Run one token of each beam through one read of the weights; logits (beams, vocab_size).

        All beams share the cache's tokens and see their own path beyond; the cache's tokens stay.
        n_best: see extend.
        """
        shared = len(cache.token_ids)
        cache.reserve(max(branches.slots) + 1)
        path = np.asarray(branches.paths, np.int64)
        n = len(token_ids)
        positions = np.full(n, shared + path.shape[1] - 1)
        visible = np.full(n, shared)
        total = shared + path.shape[1]
        if self._rotations.is_long(total) != cache.is_long:
            total = shared  # a search stays with the angles that it began with
        batch = self._batch(token_ids, positions, np.asarray(branches.slots), visible, path, total)
        self._note_skips(cache, batch)
        return self._run(cache, batch, n, n_best, cancel)

    def _note_skips(self, cache: KVCache, batch: Batch) -> None:
        """Let the cache know where keys and values begin that are not those of the dense model."""
        is_sparse = batch.paths.any() or batch.projections.any()
        if batch.n_listed or (is_sparse and len(batch.token_ids) == 1):
            cache.skipped_from(len(cache.token_ids))

    def probe(
        self,
        cache: KVCache,
        token_ids: Sequence[int],
        thresholds: NDArray[np.float32],
        start: int = 0,
        recorded: int | None = None,
        importance: NDArray[np.float32] | None = None,
    ) -> Probe:
        """What thresholds (n_layers, N_SITES) do to at most a chunk of tokens, from `start` on.

        importance   see engine.sparse_formats.Sparse
        Returns logits after each of them, or, instead, what thresholds of the last `recorded` of
        them are compared to.
        """
        config, n, first = self.config, len(token_ids), len(cache.token_ids)
        inner = padded_size(config.intermediate_size)
        widest = padded_size(max(config.hidden_size, config.n_heads * config.head_dim))
        n_recorded = recorded or 0
        n_rows = 2 * config.n_layers * n_recorded
        neurons, inputs = (np.zeros((n_rows, width), np.float32) for width in (inner, widest))
        positions = np.arange(first, first + n)
        cache.reserve(first + n)
        batch = self._batch(token_ids, positions, positions, positions + 1, None, first + n)
        batch = batch._replace(
            paths=self._dense.paths,
            projections=self._dense.projections,
            thresholds=thresholds,
            importance=self._padded(importance),
            probe=1,
            probe_from=start,
            record_from=n - n_recorded,
            record=neurons,
            input_record=inputs,
        )
        logits = self._run(cache, batch, n if recorded is None else 0, 0, None)
        cache.token_ids.extend(token_ids)
        shape = config.n_layers, 2, n_recorded
        neurons = neurons.reshape(*shape, inner)[..., : config.intermediate_size]
        return Probe(logits, neurons, inputs.reshape(*shape, widest))

    def _padded(self, importance: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """(n_layers, padded intermediate_size); ones where nothing is said."""
        if importance is None:
            return self._ones
        shape = self.config.n_layers, self.config.intermediate_size
        if importance.shape != shape:
            raise ValueError(f"importance must be of shape {shape}, got {importance.shape}")
        found = self._ones.copy()
        found[:, : shape[1]] = importance
        return found

    def _batch(
        self,
        token_ids: Sequence[int],
        positions: NDArray[np.int64],
        slots: NDArray[np.int64],
        visible: NDArray[np.int64],
        path: NDArray[np.int64] | None,
        total: int,
    ) -> Batch:
        ids = np.asarray(token_ids, np.int64)
        if ids.min(initial=0) < 0 or ids.max(initial=0) >= self.config.vocab_size:
            raise ValueError(
                f"token ids must be in [0, {self.config.vocab_size}), got {ids.min()} … {ids.max()}"
            )
        if path is None:
            path = np.empty((len(ids), 0), np.int64)
        cos, sin = self._rotations.at(positions, total)
        return Batch(
            ids,
            positions,
            slots,
            visible,
            path,
            self._windows,
            coarse=0,
            n_best=0,
            n_first=0,
            paths=self._sparse.paths,
            projections=self._sparse.projections,
            thresholds=self._sparse.thresholds,
            importance=self._importance,
            probe=0,
            probe_from=0,
            record_from=0,
            record=self._no_record,
            input_record=self._no_record,
            n_listed=0,
            listed_from=0,
            ranges=_NO_RANGES,
            margin=0.0,
            cos=cos,
            sin=sin,
        )

    def _run(
        self, cache: KVCache, batch: Batch, n_logits: int, n_best: int, cancel: Cancel | None
    ) -> NDArray[np.float32]:
        n_best = self._screened_best(n_logits, n_best)
        if self._screen and n_best:
            batch = self._screen.ask(batch, n_best)
        buffers = self._scratch.buffers(
            len(batch.token_ids),
            int(batch.visible[-1]) + batch.path.shape[1],
            n_logits if n_best else 0,
            bool(batch.n_listed),
        )
        logits = self._logits if n_logits == 1 else self._logits_rows(n_logits)
        n_threads = self._pace.n_threads
        tables = self._tables
        arguments = (
            *(self._plan, tables.matrices, tables.vectors),
            *(buffers, batch, cache.data, logits),
        )
        started = time.perf_counter()
        stopped = self.team.run(forward, n_threads, arguments, (cancel or self._never).cell)
        if stopped:
            raise Cancelled
        kind = n_logits, n_best, batch.coarse, batch.n_listed, self.sparse is None
        self._pace.record((len(batch.token_ids), *kind), time.perf_counter() - started)
        return self._scaled(logits[:, : self.config.vocab_size])

    def _screened_best(self, n_logits: int, n_best: int) -> int:
        """How many best logits the kernel is asked for; 0 = all logits."""
        return self._screen.n_best(self.config, n_logits, n_best) if self._screen else 0

    def _scaled(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """The head's bias, scale and softcap, which few models have."""
        if self.config.head_bias:
            logits += self.weights.vectors["head.bias"][: self.config.vocab_size]
        if self.config.logit_scale != 1:
            logits *= np.float32(self.config.logit_scale)
        if self.config.logit_softcap:
            cap = np.float32(self.config.logit_softcap)
            np.multiply(np.tanh(logits / cap), cap, out=logits)
        return logits

    def _logits_rows(self, n: int) -> NDArray[np.float32]:
        return np.zeros((n, -(-self.config.vocab_size // 16) * 16), np.float32)
