"""Weights and bytes by the parts of a decoder."""

from __future__ import annotations

from collections import Counter
from math import prod
from typing import NamedTuple

from engine.checkpoints import Checkpoint, _kinds
from engine.shapes import all_shapes

NAMES = ("embedding", "positions", "attention", "feed-forward", "norms", "head")
_ATTENTION = ("wq", "wk", "wv", "wo")
_OUTSIDE = {"embedding": "embedding", "position_embedding": "positions", "head": "head"}


class Part(NamedTuple):
    """n_bytes as stored; kinds: those of the tensors, most bytes first."""

    name: str
    n_weights: int
    n_bytes: int
    kinds: tuple[str, ...]


def part_of(name: str) -> str:
    """The part that a canonical tensor belongs to; biases belong to their matrices."""
    base = name.removesuffix(".bias").rpartition(".")[2]
    if base in _OUTSIDE:
        return _OUTSIDE[base]
    if base.endswith("norm"):
        return "norms"
    return "attention" if base in _ATTENTION else "feed-forward"


def parts_of(checkpoint: Checkpoint) -> list[Part]:
    """Of the tensors that are there and that the decoder reads. A tied head has no part."""
    config = checkpoint.decoder_config()
    present = set(checkpoint.tensor_names())
    weights: Counter[str] = Counter()
    by_kind: dict[str, Counter[str]] = {name: Counter() for name in NAMES}
    for name, shape in all_shapes(config).items():
        if name in present:
            part, kind = part_of(name), checkpoint.kind(name)
            weights[part] += prod(shape)
            by_kind[part][kind] += stored_bytes(shape, kind)
    return [
        Part(name, weights[name], sum(kinds.values()), tuple(k for k, _ in kinds.most_common()))
        for name, kinds in by_kind.items()
        if weights[name]
    ]


def missing_from(checkpoint: Checkpoint) -> list[str]:
    """Canonical names of what the decoder needs and the checkpoint has not."""
    present = set(checkpoint.tensor_names())
    return [name for name in all_shapes(checkpoint.decoder_config()) if name not in present]


def stored_bytes(shape: tuple[int, ...], kind: str) -> int:
    """0 for a kind that nothing here knows."""
    found = _kinds.by_name(kind)
    return 0 if found is None else prod(shape) * found.n_bytes // found.n_weights
