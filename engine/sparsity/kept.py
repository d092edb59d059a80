"""Measured costs beside the packed weights, as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from loguru import logger

from engine import packed
from engine.sparsity.level_cost import LevelCost

if TYPE_CHECKING:
    from engine.model import Model

_VERSION = 2  # changes with the meaning of any figure


def file_of(model: Model, kind: str) -> Path | None:
    """Where costs of a kind are kept; None for a model that keeps nothing."""
    return model.packed_file and model.packed_file.with_suffix(f".{kind}{_VERSION}.json")


def read(model: Model, kind: str) -> list[LevelCost]:
    """What was kept; [] when there is nothing, or nothing that can be read."""
    path = file_of(model, kind)
    if path is None:
        return []
    try:
        return [LevelCost.of_list(each) for each in json.loads(path.read_text(encoding="utf-8"))]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError) as error:
        logger.warning("{}: {}; calibrate again", path.name, error)
        return []


def write(model: Model, kind: str, costs: Sequence[LevelCost]) -> None:
    """Keep them, in place of what was kept."""
    path = file_of(model, kind)
    if path is None:
        return
    try:
        with packed.replacing(path, True) as file:
            file.write(json.dumps(list(costs)).encode())
    except OSError as error:
        logger.warning("cannot keep {}: {}", path.name, error)


def remove(model: Model, kind: str) -> None:
    """Keep none."""
    if (path := file_of(model, kind)) is not None:
        path.unlink(missing_ok=True)
