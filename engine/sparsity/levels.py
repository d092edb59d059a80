"""One knob for what is skipped: off, exact, balanced, fast, or a number."""

from __future__ import annotations

from difflib import get_close_matches

LEVELS = ("off", "exact", "balanced", "fast")
HIGHEST = 0.9

Level = str | float


def parse_level(value: str | float) -> Level:
    """One of LEVELS, or a share of the feed-forward to skip, 0.0 to 0.9; ValueError."""
    if isinstance(value, str):
        word = value.strip().lower()
        if word in LEVELS:
            return word
        try:
            value = float(word)
        except ValueError:
            near = get_close_matches(word, LEVELS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{_RULE}, got {value!r}{hint}") from None
    if isinstance(value, bool) or not 0 <= value <= HIGHEST:
        raise ValueError(f"{_RULE}, got {value!r}")
    return float(value)


_RULE = f"sparsity takes one of {', '.join(LEVELS)}, or a number from 0 to {HIGHEST}"
