"""What the layer loop reads and writes, and where in its tables everything stands.

Letters: `T` tokens of the batch. All rows are float32 and padded with zeros to 32 columns.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.kernels import simd
from engine.kernels.compiler import kernel

# columns of `matrices`: addresses of the format's kernels and of the packed data, sizes in blocks;
# of its adapter (kernels/low_rank.py) those of kernels and data, the rank (0 = no adapter), and
# where in a row of `shrunk` its A x stands
(MATMUL, MATMUL_COARSE, ROW, DATA, GROUPS, BLOCKS, INT8, STRIDE, SCALES,
 SHRINK, EXPAND, LOW, HIGH, RANK, SHRUNK, N_COLUMNS) = range(16)  # fmt: skip
# rows of `matrices`: those of the model, then those of each layer (0 in DATA: absent). The last six
# are copies to be read in part: their MATMUL is of ROWS and INPUTS in kernels/partial.py, INT8
# whether it wants what `spread` makes, GROUPS tiles of 32, STRIDE the bytes of a row or an input,
# SCALES the first block's scales of inputs, if values are to be multiplied with them beforehand
EMBEDDING, POSITION, HEAD, SCREEN, SCREEN_REST, BASIS, FIRST_LAYER = range(7)
(WQ, WK, WV, WO, W_GATE, W_UP, W_DOWN, UP_ROWS, DOWN_INPUTS,
 WQ_INPUTS, WK_INPUTS, WV_INPUTS, WO_INPUTS, N_MATRICES) = range(14)  # fmt: skip
# where a threshold decides: rows of `up` by the gate, inputs of `down` by the product, inputs of q,
# k and v together, inputs of o. Columns of thresholds and n_active
UP_SITE, DOWN_SITE, QKV_SITE, O_SITE, N_SITES = range(5)
# columns of `vectors`, a row a layer and one more for the end: addresses, 0 = absent
(NORM, NORM_BIAS, FFN_NORM, FFN_NORM_BIAS, Q_NORM, K_NORM,
 BQ, BK, BV, BO, B_GATE, B_UP, B_DOWN, SLOPES, BOUNDS, POST_NORM, FFN_POST_NORM,
 N_VECTORS) = range(18)  # fmt: skip

# (token, head) pairs that share one read of the keys: more and their scores leave the cache
TILE_ROWS = 24
# what a screened head does at most: rows of logits in a call, and best logits in a row
SCREENED_ROWS, SCREENED_BEST = 32, 128
# so many tokens at most have their attention spread over the segments of the cache
FEW = 8
EVERYTHING = 1 << 62  # a window that no context reaches


class Plan(NamedTuple):
    """What the layer loop needs to know of the decoder; flags are 0 or 1."""

    n_layers: int
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    width: int  # head_dim rounded up to 32: a row of the cache
    rotary_dim: int  # 0 = no rotation
    interleaved: int
    local_rope: int  # layers with a window have their own rotation: see Batch.cos
    qk_norm_whole: int  # one norm over all heads, not one for each
    layernorm: int
    parallel: int
    activation: int
    gated: int
    any_int8: int
    attend: int  # addresses of the cache format's kernels
    attend_listed: int  # 0 where no block is ever skipped
    store_key: int
    store_value: int
    norm_eps: float
    attention_scale: float
    attention_softcap: float  # 0 = none
    clip_qkv: float
    embedding_scale: float


class Buffers(NamedTuple):
    """Scratch for up to T tokens and the threads; float32 unless said."""

    x: NDArray[np.float32]  # (T, hidden) the residual stream
    normed: NDArray[np.float32]  # (T, hidden)
    blocks: NDArray[np.uint8]  # (T, widest row in int8 blocks)
    q: NDArray[np.float32]  # (T, heads): as projected
    k: NDArray[np.float32]  # (T, kv heads)
    v: NDArray[np.float32]
    queries: NDArray[np.float32]  # (T, n_heads, width) numbers, rotated: [kv head][token][head]
    attended: NDArray[np.float32]  # (T, heads)
    out: NDArray[np.float32]  # (T, hidden): what a branch adds to x
    gate: NDArray[np.float32]  # (T, intermediate)
    up: NDArray[np.float32]  # (T, intermediate)
    scores: NDArray[np.float32]  # (threads, TILE_ROWS or heads that share keys, SEGMENT)
    partials: NDArray[np.float32]  # (n,) partial results: of a tile a thread, or of all segments
    turned: NDArray[np.float32]  # (rows, hidden) what the screen of the head multiplies
    turned_blocks: NDArray[np.uint8]  # (rows, hidden in int8 blocks)
    rest: NDArray[np.float32]  # (rows, padded vocabulary): scores of the screen's second part
    groups: NDArray[np.float32]  # (3, rows, padded groups of the head): see screened_head
    best: NDArray[np.float32]  # (threads, SCREENED_BEST)
    spread: NDArray[np.uint8]  # the normed row of one token, see partial.spread
    rows: NDArray[np.int32]  # (intermediate,): neurons whose rows of `up` are read
    active: NDArray[np.uint8]  # see partial.active_inputs
    n_active: NDArray[np.int64]  # (threads, n_layers, N_SITES): rows and inputs that were read
    ratings: NDArray[np.float32]  # (T n_heads, blocks): see rate_blocks
    distances: NDArray[np.float32]  # (threads, blocks)
    lists: NDArray[np.int64]  # (threads, T n_kv_heads, blocks): the blocks that are read
    n_listed: NDArray[np.int64]  # (threads, T n_kv_heads): how many
    shrunk: NDArray[np.float32]  # (T or threads FEW, places of an adapter's A x)
    stops: NDArray[np.int64]  # (n_layers,): whether the call was cancelled, as thread 0 saw it


class Batch(NamedTuple):
    """T tokens and where they stand. int64 unless said."""

    token_ids: NDArray[np.int64]  # (T,)
    positions: NDArray[np.int64]  # (T,)
    slots: NDArray[np.int64]  # (T,): the cache rows that they are written to
    visible: NDArray[np.int64]  # (T,): they see slots [0, visible), and then their path
    path: NDArray[np.int64]  # (T, P) further slots, at positions visible, visible + 1 …
    windows: NDArray[np.int64]  # (n_layers,): how many positions back a layer sees
    coarse: int  # 1: products take one byte an activation, 0: two
    n_best: int  # how many of the best logits must be right; 0 = all
    n_first: int  # groups of 16 logits that are computed first, at least n_best
    paths: NDArray[np.int64]  # (n_layers,): of single tokens through feed-forwards, see sparse.py
    projections: NDArray[np.int64]  # (n_layers, 2): 1 = single tokens' q, k and v, and o, by inputs
    thresholds: NDArray[np.float32]  # (n_layers, N_SITES): what is not above is not read
    importance: NDArray[np.float32]  # (n_layers, padded intermediate): gates times it are compared
    probe: int  # 1: see probe_gate and probe_inputs
    probe_from: int
    record_from: int  # this token and those behind it are recorded
    record: NDArray[np.float32]  # (2 n_layers recorded tokens or 0, padded intermediate)
    input_record: NDArray[np.float32]  # (2 n_layers recorded tokens or 0, widest row of inputs)
    n_listed: int  # blocks of the cache that a kv head reads for a token; 0 = all
    listed_from: int  # tokens that see fewer slots read all of them
    ranges: NDArray[np.uint8]  # of the cache's keys, see KeyRanges; empty with n_listed 0
    margin: float  # of the head's screen, in its bounds times the length of the normed row
    cos: NDArray[np.float32]  # (T, rotary_dim / 2), twice as wide with a local_rope
    sin: NDArray[np.float32]


@kernel
def row_of(array, index):
    """Address of row `index` of a 2-D array."""
    return simd.address_of(array) + array.strides[0] * index
