"""Looks at models without loading them: sizes, positions, what is fast. Needs neither Numba nor
torch, and reads no weights."""

from __future__ import annotations

from engine.inspection.memory import Memory, memory_of
from engine.inspection.positions import positions_of, reach_of
from engine.inspection.sizes import Part, missing_from, parts_of
from engine.inspection.speed import Ability, abilities_of

__all__ = [
    "Ability",
    "Memory",
    "Part",
    "abilities_of",
    "memory_of",
    "missing_from",
    "parts_of",
    "positions_of",
    "reach_of",
]
