"""Pairs of LoRA for modules that hold several of the decoder's matrices: q, k and v in one, or gate
and up.

PEFT has one A and one B for such a module; the decoder has a pair for each matrix. The name of a
fused pair is the names of its matrices in the order of rows, joined with "+".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.architectures import architecture, layout
from engine.checkpoints._names import sharing
from engine.checkpoints._parts import joined, part_of
from engine.config import DecoderConfig
from engine.shapes import matrix_shapes

Floats = NDArray[np.float32]
Pairs = dict[str, tuple[Floats, Floats]]
_JOINT = "+"


def joint_name(names: Sequence[str]) -> str:
    return _JOINT.join(names)


def names_in(name: str) -> list[str]:
    """The canonical names of a pair's matrices."""
    return name.split(_JOINT)


def module_of(name: str, architecture_name: str) -> str:
    """Hugging Face's name of a pair's module. ValueError when there are matrices in it beside those
    of the pair."""
    first = names_in(name)[0]
    _, layer, kind = first.split(".")
    table = _weights(architecture_name)
    if sharing(table, first) != names_in(name):
        raise ValueError(
            f"{first} is a part of a module of {architecture_name}; "
            "engine.adapters.in_modules makes a pair for the whole"
        )
    return table[f"layers.{{i}}.{kind}"].replace("{i}", layer).removesuffix(".weight")


def modules_in(layers: set[str], architecture_name: str) -> set[str]:
    """Hugging Face's names of all modules in these layers that a pair can be for."""
    stored = {
        stored
        for name, stored in _weights(architecture_name).items()
        if name.startswith("layers.") and not name.endswith("_norm")
    }
    return {name.replace("{i}", i).removesuffix(".weight") for name in stored for i in layers}


def fused(matrices: Mapping[str, tuple[Any, Any]], config: DecoderConfig) -> Pairs:
    """Pairs as Hugging Face's modules of this model have them, rows in their order.

    Where the matrices of a module have the same A, so has the module; else the As stand one above
    another and the rank is the sum.
    """
    table, shapes = _weights(config.architecture), matrix_shapes(config)
    found: Pairs = {}
    for name, (a, b) in matrices.items():
        parts = sharing(table, names_in(name)[0])
        if len(parts) == 1 or name == joint_name(parts):
            found[name] = np.asarray(a, np.float32), np.asarray(b, np.float32)
        elif joint_name(parts) not in found:
            there = {part: matrices[part] for part in parts if part in matrices}
            sizes = [shapes[part][0] for part in parts]
            pair = _joined(there, dict(zip(parts, sizes, strict=True)), _head_dim(config))
            found[joint_name(parts)] = pair
    return found


def split(matrices: Pairs, config: DecoderConfig) -> Pairs:
    """A pair for each matrix of the decoder. ValueError where rows do not fit."""
    shapes = matrix_shapes(config)
    found: Pairs = {}
    for name, (a, b) in matrices.items():
        parts = names_in(name)
        if len(parts) == 1 or any(part not in shapes for part in parts):
            found[parts[0]] = a, b  # what does not fit is said by the caller
            continue
        sizes = [shapes[part][0] for part in parts]
        if len(b) != sum(sizes):
            raise ValueError(
                f"{' and '.join(parts)} have {sum(sizes)} rows, lora_B has {len(b)}; it belongs "
                "to another model"
            )
        for i, part in enumerate(parts):
            rows = part_of(b, sizes, i, _head_dim(config))
            # directions that only others of the module use are left out
            used = rows.any(axis=0) | ~b.any(axis=0)
            if used.all():
                found[part] = a, rows
            elif used.any():
                found[part] = np.ascontiguousarray(a[used]), np.ascontiguousarray(rows[:, used])
    return found


def _joined(there: Pairs, sizes: Mapping[str, int], head_dim: int) -> tuple[Floats, Floats]:
    """One pair of those that are there; zeros for the others."""
    lows = [np.asarray(a, np.float32) for a, _ in there.values()]
    same = all(np.array_equal(a, lows[0]) for a in lows)
    a = lows[0] if same else np.concatenate(lows)
    rows = {part: np.zeros((size, len(a)), np.float32) for part, size in sizes.items()}
    at = 0
    for part, (low, b) in there.items():
        start = 0 if same else at
        rows[part][:, start : start + len(low)] = b
        at += len(low)
    return a, joined(list(rows.values()), head_dim)


def _head_dim(config: DecoderConfig) -> int:
    return config.head_dim if layout(config.architecture).by_head else 0


def _weights(architecture_name: str) -> dict[str, str]:
    table: dict[str, str] = architecture(architecture_name).TENSORS
    return {ours: stored for ours, stored in table.items() if not ours.endswith(".bias")}
