"""The one knob's positions: names and rule, without anything that takes time to import."""

from __future__ import annotations

from difflib import get_close_matches

AUTO = "auto"  # off or exact, whichever is faster
LEVELS = ("off", "exact", "balanced", "fast")
NAMES = (AUTO, *LEVELS)
HIGHEST = 0.9  # of a feed-forward
DEFAULT = AUTO
RULE = f"{', '.join(NAMES)}, or a number from 0 to {HIGHEST}"

Level = str | float


class NotCalibratedError(ValueError):
    """The level needs a calibration that was not made; the message names the command."""


def parse_level(value: str | float) -> Level:
    """One of NAMES, or the share of every feed-forward that is skipped; ValueError."""
    if isinstance(value, str):
        word = value.strip().lower()
        if word in NAMES:
            return word
        try:
            value = float(word)
        except ValueError:
            near = get_close_matches(word, NAMES, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"sparsity takes {RULE}, got {value!r}{hint}") from None
    if isinstance(value, bool) or not 0 <= value <= HIGHEST:
        raise ValueError(f"sparsity takes {RULE}, got {value!r}")
    return float(value)
