"""Whether the keys of a container say all of a decoder: what they would be read as is compared."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np

from engine.config import DecoderConfig, Rope
from engine.rope import inverse_frequencies

_ROPES = ("rope", "local_rope")


def require_said(found: DecoderConfig, wanted: DecoderConfig, container: str, way_out: str) -> None:
    """ValueError with the first thing of `wanted` that a reader would find to be something else.

    container  "a GGUF file of mpt"
    way_out    what has words for it
    """
    for field in fields(DecoderConfig):
        name = field.name
        values = getattr(found, name), getattr(wanted, name)
        if name == "architecture" or (name == "alibi_max_bias" and wanted.position != "alibi"):
            continue
        if name in _ROPES and not _same_rotation(found, wanted, name):
            raise ValueError(
                f"{container} has no words for {_rotation_of(wanted, name)}; {way_out}"
            )
        if name not in _ROPES and not _same(*values):
            said = f"{values[1]:g}" if isinstance(values[1], float) else values[1]
            raise ValueError(f"{container} has no words for {name} {said}; {way_out}")


def _same(found: Any, wanted: Any) -> bool:
    """GGUF's numbers are float32."""
    if isinstance(found, float) and isinstance(wanted, float):
        return bool(np.isclose(found, wanted, rtol=1e-5, atol=0))
    return bool(found == wanted)


def _same_rotation(found: DecoderConfig, wanted: DecoderConfig, name: str) -> bool:
    """By the frequencies that come of it: llama3's scaling is a list of divisors in GGUF."""
    if wanted.position != "rope" or (name == "local_rope" and not wanted.sliding_window):
        return True
    size, longest = wanted.rotary_dim, 2 * wanted.max_seq_len
    if found.rotary_dim != size:
        return False
    for length in (1, longest):
        one, other = (
            inverse_frequencies(_rope(config, name), size, length, config.max_seq_len)
            for config in (found, wanted)
        )
        if not np.allclose(one[0], other[0], rtol=1e-4) or not _same(one[1], other[1]):
            return False
    return True


def _rope(config: DecoderConfig, name: str) -> Rope:
    return getattr(config, name) or config.rope


def _rotation_of(config: DecoderConfig, name: str) -> str:
    rope = _rope(config, name)
    if config.rotary_dim != config.head_dim and rope.scaling.kind == "none":
        return f"a rotation of {config.rotary_dim} of {config.head_dim} dimensions"
    kind = rope.scaling.kind
    scaling = f"scaling {kind!r} of the rotation" if kind != "none" else "the rotation"
    local = " in layers with a window" if name == "local_rope" else ""
    return f"{scaling}{local}, with a base of {rope.theta:g}"


def plain_rope(rope: Rope, rotary_dim: int, max_seq_len: int) -> Rope:
    """Without an attention factor that follows from the rest."""
    short = replace(rope, scaling=replace(rope.scaling, attention_factor=None))
    both = [inverse_frequencies(r, rotary_dim, 1, max_seq_len)[1] for r in (rope, short)]
    return short if _same(*both) else rope
