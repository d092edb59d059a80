"""From config and weights to what the layer loop reads: flags, tables of addresses, scratch."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.config import DecoderConfig
from engine.formats import Weight, weight_format
from engine.kernels import activations, tables
from engine.kernels.tables import Plan
from engine.low_rank import LowRank
from engine.rope import depends_on_length, is_long, rotation_table
from engine.scratch import padded_size
from engine.screen import Screen
from engine.sparse_formats import Copy, sparse_format
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
_POST_NORMS = {"attention_post_norm": tables.POST_NORM, "ffn_post_norm": tables.FFN_POST_NORM}
_COPIES = {
    "up_rows": tables.UP_ROWS,
    "down_inputs": tables.DOWN_INPUTS,
    "wq_inputs": tables.WQ_INPUTS,
    "wk_inputs": tables.WK_INPUTS,
    "wv_inputs": tables.WV_INPUTS,
    "wo_inputs": tables.WO_INPUTS,
}
_NO_ADAPTER = [0] * (tables.N_COLUMNS - tables.SHRINK)


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
        width=padded_size(config.head_dim),
        rotary_dim=config.rotary_dim if config.position == "rope" else 0,
        interleaved=int(config.rope.interleaved),
        local_rope=int(config.local_rope is not None),
        qk_norm_whole=int(config.qk_norm_whole),
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
        attention_softcap=float(config.attention_softcap),
        clip_qkv=float(config.clip_qkv),
        embedding_scale=float(config.embedding_scale),
    )


class Tables(NamedTuple):
    """Addresses for the layer loop, and the arrays made here that they point into."""

    matrices: NDArray[np.int64]
    vectors: NDArray[np.int64]
    slopes: NDArray[np.float32]


def make_tables(
    config: DecoderConfig,
    weights: Weights,
    screen: Screen | None = None,
    copies: Mapping[str, Copy] | None = None,
    low_rank: LowRank | None = None,
) -> Tables:
    """The layer loop's `matrices` and `vectors`; what they are made of must outlive them."""
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
    for name, copy in (copies or {}).items():
        _, number, kind = name.split(".")
        row = tables.FIRST_LAYER + tables.N_MATRICES * int(number) + _COPIES[kind]
        matrices[row] = _copy_row(copy, kind)
    for layer in range(config.n_layers):
        for i, name in enumerate(_MATRICES):
            if weight := weights.matrices.get(f"layers.{layer}.{name}"):
                row = matrices[tables.FIRST_LAYER + tables.N_MATRICES * layer + i]
                row[:] = _matrix_row(weight)
                if low_rank:
                    row[tables.SHRINK :] = low_rank.columns(f"layers.{layer}.{name}")
        for i, name in enumerate(_VECTORS):
            vectors[layer, i] = address(f"layers.{layer}.{name}")
        for name, column in _POST_NORMS.items():
            vectors[layer, column] = address(f"layers.{layer}.{name}")
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
    return [*kernels, data, groups, blocks, int(module.INT8), 0, 0, *_NO_ADAPTER]


def _copy_row(copy: Copy, kind: str) -> list[int]:
    """The same of a copy that is read in part."""
    module, tiles = sparse_format(copy.format), -(-copy.n_out // 32)
    by_rows = kind == "up_rows"
    kernel = module.rows if by_rows else module.inputs
    stride = copy.data.shape[1] if by_rows else module.stride(tiles)
    data, blocks = copy.data.ctypes.data, -(-copy.n_in // 32)
    scales = data + 32 * stride if copy.format == "int8" else 0
    spread = int(by_rows and module.SPREAD)
    return [kernel.address, 0, 0, data, tiles, blocks, spread, stride, scales, *_NO_ADAPTER]


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
    windows = np.full(config.n_layers, config.sliding_window or tables.EVERYTHING, np.int64)
    windows[list(config.full_attention_layers)] = tables.EVERYTHING
    return windows


class Rotations:
    """cos and sin of the positions asked for, from a table that grows.

    With a local_rope its columns stand behind the others.
    """

    def __init__(self, config: DecoderConfig) -> None:
        self._config = config
        self._ropes = [rope for rope in (config.rope, config.local_rope) if rope]
        # some scalings depend on the length of the whole text, so that their table is never kept
        self._fixed = not any(depends_on_length(rope) for rope in self._ropes)
        self._cos, self._sin = self._table(np.arange(0), 0)

    def _table(
        self, positions: NDArray[np.int64], total: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        if self._config.position != "rope":
            empty = np.zeros((len(positions), 0), np.float32)
            return empty, empty
        sizes = self._config.rotary_dim, positions, total, self._config.max_seq_len
        tables = [rotation_table(rope, *sizes) for rope in self._ropes]
        if len(tables) == 1:
            return tables[0]
        cos, sin = (np.concatenate(both, axis=1) for both in zip(*tables, strict=True))
        return cos, sin

    def is_long(self, total: int) -> bool:
        """Whether all angles of a text of `total` tokens are those for long texts (longrope)."""
        return any(is_long(rope, total, self._config.max_seq_len) for rope in self._ropes)

    def at(
        self, positions: NDArray[np.int64], total: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(cos, sin), float32 (T, rotary_dim / 2) or twice as wide, in a text of `total` tokens."""
        if not self._fixed:
            return self._table(positions, total)
        if total > len(self._cos):
            n = max(512, 2 * len(self._cos), total)
            self._cos, self._sin = self._table(np.arange(n), n)
        return self._cos[positions], self._sin[positions]
