"""One knob for what is skipped, from nothing to much."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from engine.plan import Screen
from engine.sparsity import calibration
from engine.sparsity.knob import DEFAULT, HIGHEST, LEVELS, Level, NotCalibratedError, parse_level

if TYPE_CHECKING:
    from engine.model import Model

__all__ = ["DEFAULT", "HIGHEST", "LEVELS", "Level", "NotCalibratedError", "Sparsity", "parse_level"]


class Sparsity(NamedTuple):
    """What a level skips.

    level   as it was asked for
    screen  of the vocabulary head; None = all of it is computed
    """

    level: Level = "off"
    screen: Screen | None = None

    @property
    def skips(self) -> bool:
        """Whether a token may read less than all."""
        return any(part is not None for part in self[1:])


def sparsity_of(model: Model, level: str | float) -> Sparsity:
    """What `level` means for a model.

    off       nothing is skipped
    exact     nothing that could change a bit: on no machine so far was a certified screen of the
              head quicker than the head (benchmarks/sparsity.py), so that nothing is skipped
    balanced  the head behind a screen
    fast      the same with smaller margins

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
        return Sparsity(level, found.screen)
    return Sparsity(level, found.screen._replace(margin=3.0, margins=1.0))


def apply(model: Model, sparsity: Sparsity) -> None:
    """From the next call on."""
    model.decoder.use_screen(sparsity.screen)
