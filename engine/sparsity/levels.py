"""One knob for what is skipped, from nothing to much."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, NamedTuple

from engine.plan import Screen
from engine.sparsity import calibration, kv
from engine.sparsity.calibration import NotCalibratedError
from engine.sparsity.kv import KVBudget

if TYPE_CHECKING:
    from engine.model import Model

LEVELS = ("off", "exact", "balanced", "fast")
HIGHEST = 0.9  # of a feed-forward
_RULE = f"sparsity takes {', '.join(LEVELS)}, or a number from 0 to {HIGHEST}"

Level = str | float


class Sparsity(NamedTuple):
    """What a level skips.

    level   as it was asked for
    screen  of the vocabulary head; None = all of it is computed
    kv      how much of a long text is read; None = all of it
    """

    level: Level = "off"
    screen: Screen | None = None
    kv: KVBudget | None = None


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
            raise ValueError(f"{_RULE}, got {value!r}{hint}") from None
    if isinstance(value, bool) or not 0 <= value <= HIGHEST:
        raise ValueError(f"{_RULE}, got {value!r}")
    return float(value)


def sparsity_of(model: Model, level: str | float) -> Sparsity:
    """What `level` means for a model.

    off       nothing is skipped
    exact     nothing that could change a bit: on no machine so far was a certified screen of the
              head quicker than the head (benchmarks/sparsity.py), so that nothing is skipped
    balanced  the head behind a screen; of texts from 3,072 tokens on, the parts that matter most
    fast      the same with smaller margins, and of texts from 2,048 tokens on

    ValueError; NotCalibratedError for a level that needs what `calibrate` measures.
    """
    level = parse_level(level)
    if level in ("off", "exact", 0.0):
        return Sparsity(level)
    found = calibration.stored(model)
    if found is None:
        raise NotCalibratedError(
            f"sparsity {level} needs a calibration of {model.path.name}: "
            "`sparsechat sparsity calibrate` makes it, once, in less than a minute"
        )
    if level == "balanced":
        return Sparsity(level, found.screen, kv.BALANCED)
    return Sparsity(level, found.screen._replace(margin=3.0, margins=1.0), kv.FAST)


def apply(model: Model, sparsity: Sparsity) -> None:
    """From the next call on."""
    model.decoder.use_screen(sparsity.screen)
    model.decoder.use_kv_budget(sparsity.kv)
