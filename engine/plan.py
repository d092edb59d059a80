"""From config and weights to what the layer loop reads: flags, tables of addresses, scratch."""

from __future__ import annotations

from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.config import DecoderConfig
from engine.formats import Weight, weight_format
from engine.kernels import activations, tables
from engine.kernels.attention import SEGMENT
from engine.kernels.head import LOWEST
from engine.kernels.listed import BLOCK
from engine.kernels.softmax import partial_bytes
from engine.kernels.tables import Buffers, Plan
from engine.rope import rotation_table
from engine.weights import Weights

_ACTIVATIONS = {
    "silu": activations.SILU,
    "gelu": activations.GELU,
    "gelu_tanh": activations.GELU_TANH,
    "relu": activations.RELU,
}
_MATRICES = ("wq", "wk", "wv", "wo", "w_gate", "w_up", "w_down")
_VECTORS = (
    *("attention_norm", "attention_norm.bias", "ffn_norm", "ffn_norm.bias", "q_norm", "k_norm"),
    *("wq.bias", "wk.bias", "wv.bias", "wo.bias", "w_gate.bias", "w_up.bias", "w_down.bias"),
)
_PER_TOKEN = (
    *("x", "normed", "blocks", "q", "k", "v", "queries", "attended", "out", "gate", "up"),
)
_EVERYTHING = 1 << 62  # a window that no context reaches


def _padded(n: int) -> int:
    return -(-n // 32) * 32


def make_plan(config: DecoderConfig, weights: Weights, kv: ModuleType) -> Plan:
    """The flags and sizes of the layer loop; kv: the format of its cache."""
    return Plan(
        n_layers=config.n_layers,
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        n_heads=config.n_heads,
        n_kv_heads=config.n_kv_heads,
        head_dim=config.head_dim,
        width=_padded(config.head_dim),
        rotary_dim=config.rotary_dim if config.position == "rope" else 0,
        interleaved=int(config.rope.interleaved),
        layernorm=int(config.norm == "layernorm"),
        parallel=int(config.residual == "parallel"),
        activation=_ACTIVATIONS[config.activation],
        gated=int(config.gated),
        any_int8=int(any(weight_format(w.format).INT8 for w in weights.matrices.values())),
        attend=kv.attend.address,
        attend_listed=0,
        store_key=kv.store_key.address,
        store_value=kv.store_value.address,
        norm_eps=float(config.norm_eps),
        attention_scale=float(config.attention_scale or config.head_dim**-0.5),
        clip_qkv=float(config.clip_qkv),
        embedding_scale=float(config.embedding_scale),
    )


class Screen(NamedTuple):
    """What says roughly what the head would: see engine/kernels/head.py.

    scores   (vocab_size, n) of the first n numbers of a state
    rest     (vocab_size, hidden_size - n) of the others, with one byte an activation; None: there
             are no others
    basis    (hidden_size, hidden_size): what turns states before; None = they stay as they are
    bounds   float32 (vocab_size padded to groups,): how far a score may be off, for a state of
             length 1
    margin   in bounds: what a logit may be above the screen's score, where one logit is needed
    margins  the same where several are
    n_first  groups of logits that are computed in any case
    """

    scores: Weight
    rest: Weight | None
    basis: Weight | None
    bounds: NDArray[np.float32]
    margin: float
    margins: float
    n_first: int = 1


class Tables(NamedTuple):
    """Addresses for the layer loop, and the arrays made here that they point into."""

    matrices: NDArray[np.int64]
    vectors: NDArray[np.int64]
    slopes: NDArray[np.float32]


def make_tables(config: DecoderConfig, weights: Weights, screen: Screen | None = None) -> Tables:
    """The layer loop's `matrices` and `vectors`; weights and screen must outlive them."""
    slopes = alibi_slopes(config)
    matrices = np.zeros(
        (tables.FIRST_LAYER + tables.N_MATRICES * config.n_layers, tables.N_COLUMNS), np.int64
    )
    vectors = np.zeros((config.n_layers + 1, tables.N_VECTORS), np.int64)

    def address(name: str) -> int:
        return weights.vectors[name].ctypes.data if name in weights.vectors else 0

    embedding = weights.matrices["embedding"]
    matrices[tables.EMBEDDING] = _matrix_row(embedding)
    matrices[tables.HEAD] = _matrix_row(weights.matrices.get("head", embedding))
    if screen is not None:
        matrices[tables.SCREEN] = _matrix_row(screen.scores)
        if screen.rest is not None:
            matrices[tables.SCREEN_REST] = _matrix_row(screen.rest)
        if screen.basis is not None:
            matrices[tables.BASIS] = _matrix_row(screen.basis)
    if config.position == "learned":
        matrices[tables.POSITION] = _matrix_row(weights.matrices["position_embedding"])
    for layer in range(config.n_layers):
        for i, name in enumerate(_MATRICES):
            if weight := weights.matrices.get(f"layers.{layer}.{name}"):
                matrices[tables.FIRST_LAYER + tables.N_MATRICES * layer + i] = _matrix_row(weight)
        for i, name in enumerate(_VECTORS):
            vectors[layer, i] = address(f"layers.{layer}.{name}")
        if config.shared_norm:
            vectors[layer, tables.FFN_NORM] = vectors[layer, tables.NORM]
            vectors[layer, tables.FFN_NORM_BIAS] = vectors[layer, tables.NORM_BIAS]
        if config.position == "alibi":
            vectors[layer, tables.SLOPES] = slopes.ctypes.data
    vectors[-1, tables.NORM] = address("final_norm")
    vectors[-1, tables.NORM_BIAS] = address("final_norm.bias")
    vectors[-1, tables.BOUNDS] = screen.bounds.ctypes.data if screen else 0
    return Tables(matrices, vectors, slopes)


def _matrix_row(weight: Weight) -> list[int]:
    """One row of `matrices`."""
    module = weight_format(weight.format)
    groups, blocks, _ = weight.data.shape
    data = weight.data.ctypes.data
    coarse = module.matmul_coarse if module.INT8 else module.matmul
    kernels = [module.matmul.address, coarse.address, module.row.address]
    return [*kernels, data, groups, blocks, int(module.INT8)]


def alibi_slopes(config: DecoderConfig) -> NDArray[np.float32]:
    """A slope for each head (Press et al. 2022, arXiv:2108.12409), as MPT orders them.

    For a number of heads that is no power of two: every other slope of the next power, then the
    rest.
    """
    n = 1 << (config.n_heads - 1).bit_length()
    slopes = 2.0 ** -(np.arange(1, n + 1) * config.alibi_max_bias / n)
    if n != config.n_heads:
        slopes = np.concatenate([slopes[1::2], slopes[::2]])[: config.n_heads]
    return slopes.astype(np.float32)


def make_windows(config: DecoderConfig) -> NDArray[np.int64]:
    """How many positions back each layer sees, its own included; int64 (n_layers,)."""
    windows = np.full(config.n_layers, config.sliding_window or _EVERYTHING, np.int64)
    windows[list(config.full_attention_layers)] = _EVERYTHING
    return windows


class Rotations:
    """cos and sin of the positions asked for, from a table that grows."""

    def __init__(self, config: DecoderConfig) -> None:
        self._config = config
        # dynamic scaling depends on the length of the whole text, so that its table is never kept
        self._fixed = config.rope.scaling.kind != "dynamic"
        self._cos, self._sin = self._table(np.arange(0), 0)

    def _table(
        self, positions: NDArray[np.int64], total: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        if self._config.position != "rope":
            empty = np.zeros((len(positions), 0), np.float32)
            return empty, empty
        config = self._config
        return rotation_table(config.rope, config.rotary_dim, positions, total, config.max_seq_len)

    def at(
        self, positions: NDArray[np.int64], total: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(cos, sin), float32 (T, rotary_dim / 2), in a text of `total` tokens."""
        if not self._fixed:
            return self._table(positions, total)
        if total > len(self._cos):
            n = max(512, 2 * len(self._cos), total)
            self._cos, self._sin = self._table(np.arange(n), n)
        return self._cos[positions], self._sin[positions]


class Scratch:
    """Buffers for the layer loop, made for the widest batch so far; narrower ones are views."""

    def __init__(self, config: DecoderConfig, n_threads: int) -> None:
        self._config, self._n_threads = config, n_threads
        self._screened: dict[str, NDArray[Any]] = {}
        self._listed = self._listed_buffers(0, 0)
        self._made: Buffers | None = None
        self._rows = max(tables.TILE_ROWS, config.n_heads // config.n_kv_heads)
        self._partial = partial_bytes(_padded(config.head_dim)) // 4

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
        self.latest = made._replace(**views, **screened, **self._listed)
        return self.latest

    def _make_listed(self, n_tokens: int, n_slots: int) -> None:
        """Room for the lists of n_tokens."""
        n_blocks, n_rows = self._listed["distances"].shape[1], self._listed["ratings"].shape[0]
        rows = max(n_rows, n_tokens * self._config.n_heads)
        if n_blocks < n_slots // BLOCK + 1 or n_rows < rows:
            # twice what is needed, as for partial results
            self._listed = self._listed_buffers(rows, _padded(2 * (n_slots // BLOCK + 1)))

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
            hidden, n_groups = _padded(self._config.hidden_size), -(-self._config.vocab_size // 16)
            made = self._screened = {
                "turned": np.zeros((n, hidden), np.float32),
                "turned_blocks": np.zeros((n, hidden // 32 * activations.BLOCK_BYTES), np.uint8),
                "rest": np.zeros((n, 16 * n_groups), np.float32),
                "groups": np.full((3, n, _padded(n_groups)), LOWEST, np.float32),
                "best": np.zeros((self._n_threads, tables.SCREENED_BEST), np.float32),
            }
        return made

    def _n_partials(self, n_tokens: int, n_slots: int) -> int:
        n = 2 * self._n_threads * self._rows
        if n_tokens <= tables.FEW:
            # twice what is needed: a text grows, and these would be made anew at each segment
            n = max(n, 2 * -(-n_slots // SEGMENT) * tables.FEW * self._config.n_heads)
        return int(n * self._partial)

    def _make(self, n: int, n_partials: int) -> Buffers:
        config = self._config
        hidden, inner = _padded(config.hidden_size), _padded(config.intermediate_size)
        heads = _padded(config.n_heads * config.head_dim)
        kv_heads = _padded(config.n_kv_heads * config.head_dim)
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
            queries=floats(n, config.n_heads, _padded(config.head_dim)),
            attended=floats(n, heads),
            out=floats(n, hidden),
            gate=floats(n, inner),
            up=floats(n, inner),
            scores=floats(self._n_threads, self._rows, SEGMENT),
            partials=floats(n_partials),
            **self._screen_buffers(0),
            **self._listed,
            stops=np.zeros(config.n_layers, np.int64),
        )
