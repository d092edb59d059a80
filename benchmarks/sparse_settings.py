"""What the benchmark of sparsity compares: levels, and single methods that levels are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

import engine
from engine.kernels.head import LOWEST
from engine.screen import Screen
from engine.sparsity import calibration, head, layer_calibration

METHODS = ("calibrated head", "certified head")
NAMES = (*METHODS, "exact", "balanced", "fast")
CALLS = {"greedy": 1, "top 40": 40}  # how many of the best logits a call asks for


class Setting(NamedTuple):
    """A way to run a model.

    name    for the table
    use     makes the model run like that from the next call on
    """

    name: str
    use: Callable[[engine.Model], None]


def use_off(model: engine.Model) -> None:
    """The dense engine."""
    model.set_sparsity("off")


def settings(model: engine.Model, names: Sequence[str]) -> Iterator[Setting]:
    """Methods, each alone, and levels; calibrates a model that is not."""
    if not names:
        return
    if calibration.stored(model) is None or layer_calibration.stored(model) is None:
        calibration.calibrate(model)
    found = calibration.stored(model)
    assert found is not None
    for name in names:
        if name in METHODS:
            certified = name == "certified head"
            screen = head.certified(_head(model)) if certified else found.screen
            yield Setting(name, partial(_use_screen, screen=screen))
        else:
            yield Setting(name, partial(_use_level, level=name))


def _use_level(model: engine.Model, level: str) -> None:
    model.set_sparsity(level)


def _use_screen(model: engine.Model, screen: Screen) -> None:
    model.set_sparsity("off")
    model.decoder.use_screen(screen)


def _head(model: engine.Model) -> engine.formats.Weight:
    matrices = model.weights.matrices
    return matrices.get("head", matrices["embedding"])


def computed_groups(model: engine.Model, n_best: int) -> int:
    """How many groups of rows of the head the latest call, of one token, computed exactly.

    All without a screen; else those that looked best, and those that could reach the n_best-th of
    their maxima.
    """
    screen = model.decoder._screen
    if screen is None or n_best == 0:
        return int(_head(model).data.shape[0])
    upper, _, exact = model.decoder._scratch.latest.groups[:, 0]
    least = np.sort(exact)[-n_best]
    return int(((exact > LOWEST) | (upper >= least)).sum())


def bytes_read(model: engine.Model, n_groups: float) -> int:
    """Of weights, by a token for which n_groups of the head were computed.

    Knows the head's screen; other methods are counted as if they read everything.
    """
    whole, config = _head(model), model.config
    # of an embedding that is not the head too, a token reads one row
    unread = 0 if config.tied_head else model.weights.matrices["embedding"].data.nbytes
    found = model.n_bytes - unread - whole.data.nbytes + n_groups * whole.data[0].nbytes
    if (screen := model.decoder._screen) is not None:
        found += head.n_bytes(screen)
    return int(found)
