"""What the formats of plain floats share: `put` writes one number of number_bytes."""

from __future__ import annotations

from engine.kernels import simd
from engine.kernels.attention import key_address, segment_layout, value_address
from engine.kernels.compiler import kernel


@kernel
def store_key(put, number_bytes, vector, cache, width, slot, head_dim):
    """STORE of a key, see engine/kernels/attention.py."""
    layout = segment_layout(width, number_bytes, 0)
    at = key_address(cache, layout, width, slot)
    for i in range(head_dim):
        put(at + layout.sixteen * i, simd.get_f32(vector + 4 * i))


@kernel
def store_value(put, number_bytes, vector, cache, width, slot, head_dim):
    """STORE of a value."""
    at = value_address(cache, segment_layout(width, number_bytes, 0), slot)
    for i in range(head_dim):
        put(at + number_bytes * i, simd.get_f32(vector + 4 * i))
