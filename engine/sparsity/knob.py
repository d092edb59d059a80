"""The one knob's positions: names and rule, without anything that takes time to import."""

from __future__ import annotations

from difflib import get_close_matches
from typing import NamedTuple

LEVELS = ("off", "exact", "balanced", "fast")
HIGHEST = 0.9  # of a feed-forward
DEFAULT = "off"
RULE = f"{', '.join(LEVELS)}, or a number from 0 to {HIGHEST}"

Level = str | float


class NotCalibratedError(ValueError):
    """The level needs a calibration that was not made; the message names the command."""


class Part(NamedTuple):
    """One kind of a token's work, and what was skipped of it.

    name         such as "head"
    dense_bytes  what a token reads of it without sparsity
    read_bytes   what a token read, on average over those that were measured
    active       the share of the work that was done, 0 to 1
    detail       what decides, in a few words
    """

    name: str
    dense_bytes: float
    read_bytes: float
    active: float
    detail: str = ""


def parse_level(value: str | float) -> Level:
    """One of LEVELS, or the share of every feed-forward that is skipped; ValueError."""
    if isinstance(value, str):
        word = value.strip().lower()
        if word in LEVELS:
            return word
        try:
            value = float(word)
        except ValueError:
            near = get_close_matches(word, LEVELS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"sparsity takes {RULE}, got {value!r}{hint}") from None
    if isinstance(value, bool) or not 0 <= value <= HIGHEST:
        raise ValueError(f"sparsity takes {RULE}, got {value!r}")
    return float(value)
