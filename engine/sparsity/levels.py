"""One knob for what is skipped, from nothing to much."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from engine.screen import Screen
from engine.sparse_formats import Sparse
from engine.sparsity import calibration, copies, kv, layer_calibration
from engine.sparsity.calibration import Calibration
from engine.sparsity.copies import can_copy
from engine.sparsity.knob import AUTO, LEVELS, Level, NotCalibratedError, parse_level
from engine.sparsity.kv import KVBudget
from engine.sparsity.level_cost import SiteCost
from engine.sparsity.thresholds import Thresholds, forced
from engine.sparsity.trials import faster_level

if TYPE_CHECKING:
    from engine.model import Model


_COARSEST = 9.0  # of a method alone, which is only measured


class Sparsity(NamedTuple):
    """What a level skips.

    level   as it was asked for
    screen  of the vocabulary head; None = all of it is computed
    kv      how much of a long text is read; None = all of it
    layers  which part of the layers' matrices a token reads; None = all of it
    sites   lines of the report on the layers: what is left out of each, or why nothing is
    """

    level: Level = "off"
    screen: Screen | None = None
    kv: KVBudget | None = None
    layers: Sparse | None = None
    sites: tuple[SiteCost, ...] = ()

    @property
    def proves(self) -> bool:
        """Whether what a screen chose is proved by the dense head: engine/choices.py."""
        return self.level == "exact" and self.screen is not None

    @property
    def skips(self) -> bool:
        """Whether a token may read less than all."""
        return any(part is not None for part in (self.screen, self.kv, self.layers))

    @property
    def coarseness(self) -> float:
        """How far keys and values may be from the dense model's, to compare levels; 0 = not."""
        if self.kv is None and self.layers is None:
            return 0.0
        if isinstance(self.level, str):
            return float(LEVELS.index(self.level)) if self.level in LEVELS else _COARSEST
        return len(LEVELS) + self.level


def sparsity_of(model: Model, level: str | float) -> Sparsity:
    """What `level` means for a model.

    auto      exact where that was seen to be faster (engine/sparsity/auto.py), else off
    off       nothing is skipped
    exact     the head behind a screen, and several tokens at a time proved by the whole head: the
              text, drawn or greedy, and its log-probabilities are those of off
    balanced  the head behind a screen; of texts from 4,096 tokens on, the parts that matter most;
              of the layers what thresholds leave, where that was faster when it was measured. Zeros
              that ReLU makes are left out for nothing, but sums in another order have other bits:
              exact does without
    fast      the same with smaller margins, of texts from 2,048 tokens on, and a larger loss
    a number  as fast, and of every feed-forward this share of the neurons is skipped, those that
              matter least on the texts of the calibration; where the model was trained to leave
              this share out (`sparsechat train sparsify`), those that it was trained to. A model
              that was not loses much: at what costs little, nothing is gained (docs/log.md)

    ValueError; NotCalibratedError for a level that needs what `calibrate` measures.
    """
    level = parse_level(level)
    if level == AUTO:
        level = faster_level(model) or "off"
    if level in ("off", 0.0):
        return Sparsity(level)
    found = calibration.stored(model)
    if found is None:
        raise _not_calibrated(model, level)
    if level == "exact":
        # narrow: what it misses costs a proof that fails, and no more
        return Sparsity(level, found.screen._replace(margin=4.0, margins=0.5))
    if isinstance(level, float):
        thresholds = _share(model, found, level)
    elif (of_layers := layer_calibration.stored(model)) is not None:
        thresholds = of_layers.thresholds[level]
    else:  # a trial of exact calibrates the head only
        raise _not_calibrated(model, level)
    screen, budget = found.screen, kv.BALANCED
    if level != "balanced":
        screen, budget = fast_screen(screen), kv.FAST
    # an adapter changes matrices as a whole: what is known of their parts does not hold with it
    layers = None if model.adapter is not None else sparse_of(model, thresholds)
    return Sparsity(level, screen, budget, layers, thresholds.sites)


def _not_calibrated(model: Model, level: Level) -> NotCalibratedError:
    return NotCalibratedError(
        f"sparsity {level} needs a calibration of {model.path.name}: "
        "`sparsechat sparsity calibrate` makes it, once, in less than a minute"
    )


def fast_screen(screen: Screen) -> Screen:
    """With smaller margins."""
    return screen._replace(margin=3.0, margins=1.0)


def _share(model: Model, found: Calibration, share: float) -> Thresholds:
    if model.adapter is not None:
        raise ValueError(
            f"sparsity {share} leaves a share of the feed-forward out, which the adapter "
            f"{model.adapter.name} changes as a whole; use off, exact, balanced or fast with it"
        )
    if not can_copy(model.config, model.weights):
        raise ValueError(
            f"the feed-forwards of {model.path.name} are in {model.weight_format}, which cannot be "
            "read in part; sparsity fast skips elsewhere"
        )
    if model.trained is not None and model.trained.is_for(share):
        return model.trained.thresholds(model.decoder)
    return forced(model.decoder, found.texts, share)


def sparse_of(model: Model, thresholds: Thresholds) -> Sparse | None:
    """For the decoder, with the copies that it needs; None where nothing is left out."""
    if thresholds.is_dense:
        return None
    file = model.packed_file and model.packed_file.with_suffix(f".copies{copies.VERSION}")
    made = copies.make_copies(model.config, model.weights, file, names=thresholds.copies())
    return thresholds.sparse(made)


def apply(model: Model, sparsity: Sparsity) -> None:
    """From the next call on.

    Of the conversation's cache, what a coarser level computed is given up: a level that promises
    the dense text, or a small loss, must not go on from it.
    """
    if sparsity.coarseness < model.sparsity.coarseness:
        model.cache.truncate(model.cache.n_dense)
    model.sparsity = sparsity
    model.decoder.use_screen(sparsity.screen)
    model.decoder.use_kv_budget(sparsity.kv)
    model.decoder.use_thresholds(sparsity.layers)
