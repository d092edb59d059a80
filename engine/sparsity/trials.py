"""What a trial of the level `exact` found, kept beside the packed weights (auto.py makes it)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from loguru import logger

from engine import packed
from engine.sparsity import calibration
from engine.sparsity.knob import Level

if TYPE_CHECKING:
    from engine.model import Model

_VERSION = 1


def faster_level(model: Model) -> Level | None:
    """Off or exact, which give the same text; None = that was not tried."""
    path = _file_of(model)
    if path is None or calibration.stored(model) is None:
        return None
    try:
        gain = float(json.loads(path.read_text(encoding="utf-8"))["speed"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        logger.warning("{}: {}; tried again", path.name, error)
        return None
    return "exact" if gain > 1 else "off"


def _file_of(model: Model) -> Path | None:
    return model.packed_file and model.packed_file.with_suffix(f".trial{_VERSION}.json")


def keep_gain(model: Model, gain: float) -> None:
    """How many times the speed of `off` the level `exact` has."""
    path = _file_of(model)
    if path is None:
        return
    try:
        with packed.replacing(path) as file:
            file.write(json.dumps({"speed": round(gain, 3)}).encode())
    except OSError as error:
        logger.warning("cannot keep which level is faster: {}", error)
