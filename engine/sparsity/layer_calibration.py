"""What is measured once for a checkpoint's layers: costs of skipping, and thresholds that pay."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from loguru import logger

from engine import packed
from engine.sparsity import copies
from engine.sparsity import costs as costs_module
from engine.sparsity.costs import Costs
from engine.sparsity.level_cost import SiteCost
from engine.sparsity.losses import Texts, pieces_of
from engine.sparsity.thresholds import LEAST_GAIN, Study, Thresholds, left_whole, sizes_of

if TYPE_CHECKING:
    from engine.model import Model

Progress = Callable[[str, float], None]  # stage, fraction done in [0, 1]

# nats that thresholds may cost on the texts of the calibration; screens and skipped keys cost more
BUDGETS = {"balanced": 0.010, "fast": 0.035}
_VERSION = 3  # changes with the meaning of any figure


class LayerCalibration(NamedTuple):
    """Of one checkpoint in one packed form, on the machine and the threads it was measured on.

    thresholds  for each of BUDGETS
    """

    costs: Costs
    thresholds: dict[str, Thresholds]


def calibrate(
    model: Model, texts: Sequence[Sequence[int]], on_progress: Progress
) -> LayerCalibration:
    """Measure, and keep it; some fifteen seconds for a model of 135M weights."""
    costs = layer_costs(model, texts, on_progress)
    study = Study(model.decoder, texts, costs, on_progress)
    thresholds: dict[str, Thresholds] = {}
    chosen: Thresholds | None = None
    for level, budget in sorted(BUDGETS.items(), key=lambda item: -item[1]):
        # what a larger loss does not make faster, a smaller one does not
        if chosen is None or not chosen.is_dense:
            on_progress(f"thresholds of {level}", 0.0)
            chosen = _if_faster(model, study.best(budget), texts)
        thresholds[level] = chosen
    found = LayerCalibration(costs, thresholds)
    if (path := _file_of(model)) is not None:
        try:
            with packed.replacing(path) as file:
                file.write(json.dumps(_record(found)).encode())
        except OSError as error:
            logger.warning("cannot keep {}: {}", path.name, error)
    return found


def _if_faster(model: Model, chosen: Thresholds, texts: Texts) -> Thresholds:
    """With nothing left out unless whole tokens are seen to be faster: what a layer saves alone is
    a line between two points, and many small savings expected from it may all be none."""
    if chosen.is_dense:
        return chosen
    made = copies.make_copies(model.config, model.weights, names=chosen.copies())
    gain = costs_module.gain(model.decoder, chosen.sparse(made), pieces_of(texts))
    return chosen if gain >= LEAST_GAIN else left_whole(chosen)


def layer_costs(model: Model, texts: Sequence[Sequence[int]], on_progress: Progress) -> Costs:
    """What skipping in the layers saves."""
    config, weights = model.config, model.weights
    timed = {str(layer) for layer in costs_module.timed_layers(config)}
    names = [
        name
        for group in (copies.feed_forwards(config), copies.projections(config))
        if copies.can_copy(config, weights, group)
        for name in group
        if name.split(".")[1] in timed
    ]
    on_progress("what skipping saves", 0.0)
    sizes = sizes_of(model.decoder, texts)
    made = copies.make_copies(config, weights, names=names)
    return costs_module.measure(model.decoder, made, sizes, on_progress=on_progress)


def stored(model: Model) -> LayerCalibration | None:
    """What was kept; None when there is nothing, or nothing that can be read."""
    path = _file_of(model)
    if path is None:
        return None
    try:
        return _of_record(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        logger.warning("{}: {}; calibrate again", path.name, error)
        return None


def _file_of(model: Model) -> Path | None:
    return model.packed_file and model.packed_file.with_suffix(f".layers{_VERSION}.json")


def _record(found: LayerCalibration) -> dict[str, Any]:
    levels = {
        level: {
            "values": kept.values.tolist(),
            "paths": kept.paths.tolist(),
            "projections": kept.projections.tolist(),
            "sites": kept.sites,
            "kl": kept.kl,
            "importance": _importance(kept),
        }
        for level, kept in found.thresholds.items()
    }
    return {"costs": found.costs, "levels": levels}


def _importance(kept: Thresholds) -> list[list[float]] | None:
    """Where nothing is left out it is of no use, and long."""
    if kept.is_dense or kept.importance is None:
        return None
    found: list[list[float]] = kept.importance.tolist()
    return found


def _of_record(record: Mapping[str, Any]) -> LayerCalibration:
    *lines, token_s = record["costs"]
    costs = Costs._make([*((float(most), float(slope)) for most, slope in lines), float(token_s)])
    thresholds = {level: _thresholds(record["levels"][level]) for level in BUDGETS}
    return LayerCalibration(costs, thresholds)


def _thresholds(kept: Mapping[str, Any]) -> Thresholds:
    return Thresholds(
        np.array(kept["values"], np.float32),
        np.array(kept["paths"], np.int64),
        np.array(kept["projections"], np.int64),
        tuple(SiteCost._make(site) for site in kept["sites"]),
        float(kept["kl"]),
        None if kept["importance"] is None else np.array(kept["importance"], np.float32),
    )
