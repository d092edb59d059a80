"""Memory that a model needs: packed weights, keys and values, buffers.

The numbers are those of engine/formats, engine/cache.py and engine/scratch.py, which cannot be
imported without Numba; tests keep them together.
"""

from __future__ import annotations

from typing import NamedTuple

from engine.checkpoints import Checkpoint
from engine.config import DecoderConfig
from engine.shapes import matrix_shapes, vector_shapes

# weight format: bytes of a block of 16 x 32 weights
BLOCK_BYTES = {"f32": 2048, "f16": 1024, "bf16": 1024, "q8": 544, "q4": 320, "q4_0": 288}
# the format that keeps a stored kind as it is; q8 for all others
FORMAT_OF = {
    "F32": "f32", "F16": "f16", "BF16": "bf16", "Q8_0": "q8", "Q4_1": "q4", "Q4_0": "q4_0",
}  # fmt: skip
# format of keys and values: bytes of a number, bytes of the scale beside a key or a value
KV_BYTES = {"f32": (4, 0), "f16": (2, 0), "q8": (1, 4)}
SEGMENT = 128  # tokens that the cache grows by
CHUNK = 128  # tokens of a prompt in one call
ACTIVATION_BYTES = 80  # of a block of 32, for products with int8


class Memory(NamedTuple):
    """Bytes at n_tokens of context.

    weights  packed for the kernels, mapped from the disk
    kv       format of keys and values -> their bytes
    scratch  what a call of CHUNK tokens computes with, about
    """

    n_tokens: int
    weights: int
    kv: dict[str, int]
    scratch: int

    def total(self, kv_format: str) -> int:
        return self.weights + self.kv[kv_format] + self.scratch


def memory_of(checkpoint: Checkpoint, n_tokens: int) -> Memory:
    """ValueError where the weights have no room for so many tokens."""
    config = checkpoint.decoder_config()
    if config.position == "learned" and n_tokens > config.max_seq_len:
        raise ValueError(
            f"a context of {n_tokens} is beyond the {config.max_seq_len} positions of the weights"
        )
    segments = -(-n_tokens // SEGMENT)
    kv = {name: segments * SEGMENT * kv_bytes(config, name) for name in KV_BYTES}
    return Memory(n_tokens, packed_bytes(checkpoint, config), kv, scratch_bytes(config))


def packed_bytes(checkpoint: Checkpoint, config: DecoderConfig) -> int:
    """Of the weights as the kernels read them."""
    present = set(checkpoint.tensor_names())
    total = sum(4 * _padded(size) for size in vector_shapes(config).values())
    for name, (n_out, n_in) in matrix_shapes(config).items():
        if name in present:
            block = BLOCK_BYTES[FORMAT_OF.get(checkpoint.kind(name), "q8")]
            total += -(-n_out // 16) * -(-n_in // 32) * block
    return total


def kv_bytes(config: DecoderConfig, kv_format: str) -> int:
    """What a token adds."""
    number, scale = KV_BYTES[kv_format]
    of_a_head = 2 * (_padded(config.head_dim) * number + scale)
    return config.n_layers * config.n_kv_heads * of_a_head


def scratch_bytes(config: DecoderConfig) -> int:
    """Without what threads have beside it."""
    hidden, inner = _padded(config.hidden_size), _padded(config.intermediate_size)
    heads = _padded(config.n_heads * config.head_dim)
    kv_heads = _padded(config.n_kv_heads * config.head_dim)
    queries = config.n_heads * _padded(config.head_dim)
    floats = 3 * hidden + 2 * heads + 2 * kv_heads + queries + 2 * inner
    blocks = max(hidden, inner, heads) // 32 * ACTIVATION_BYTES
    return CHUNK * (4 * floats + blocks) + 4 * config.vocab_size


def _padded(n: int) -> int:
    return -(-n // 32) * 32
