"""Thresholds of all layers and sites: how much each leaves out, for a loss that is given.

The allocation is greedy in the sense of TEAL (arXiv:2408.14690), with time in place of a rate: each
site of each layer takes the option that is best at one price of a loss, and the price is what the
budget allows. What an option loses is taken to grow with the energy of the output that it drops, at
a rate that one probe a layer and site measures; what it saves is measured on this machine
(engine/sparsity/costs.py). The loss of the whole is then measured, and the price corrected by it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from engine.kernels.sparse import BY_INPUTS, BY_ROWS, DENSE
from engine.kernels.tables import DOWN_SITE, N_SITES, O_SITE, QKV_SITE, UP_SITE
from engine.sparse_formats import Copy, Sparse
from engine.sparsity import copies
from engine.sparsity.costs import Costs
from engine.sparsity.level_cost import SiteCost
from engine.sparsity.losses import ALL, Dense, Floats, Texts, distributions, loss, pieces_of
from engine.sparsity.options import Options, options_of
from engine.sparsity.statistics import statistics

if TYPE_CHECKING:
    from engine.decoder import Decoder

Progress = Callable[[str, float], None]  # stage, fraction done in [0, 1]

SITES = {UP_SITE: "up", DOWN_SITE: "down", QKV_SITE: "q k v", O_SITE: "o"}
_KINDS = {UP_SITE: (copies.UP,), DOWN_SITE: (copies.DOWN,), QKV_SITE: copies.QKV,
          O_SITE: (copies.WO,)}  # fmt: skip
LEAST_GAIN = 0.02  # of a token: less is within what machines differ by from minute to minute
_RATE_PIECES = 1  # that a rate is measured on
_DROPPED = 0.03  # of the energy, about: where a rate is measured, if that much saves time


@dataclass(frozen=True)
class Thresholds:
    """What a level leaves out of the layers, as engine.sparse_formats.Sparse has it, and why.

    sites  lines of the report, one a layer and site
    kl     measured on the texts of the calibration, all layers together
    """

    values: Floats
    paths: NDArray[np.int64]
    projections: NDArray[np.int64]
    sites: tuple[SiteCost, ...] = ()
    kl: float = 0.0
    importance: Floats | None = None

    @property
    def is_dense(self) -> bool:
        """Whether nothing is left out anywhere."""
        return not (self.paths.any() or self.projections.any())

    def copies(self) -> list[str]:
        """Names of the copies that are read."""
        found = []
        for layer, (path, (qkv, o)) in enumerate(zip(self.paths, self.projections, strict=True)):
            kinds = [*([copies.UP] if path == BY_ROWS else []), *([copies.DOWN] if path else [])]
            kinds += [*(copies.QKV if qkv else ()), *((copies.WO,) if o else ())]
            found += [f"layers.{layer}.{kind}" for kind in kinds]
        return found

    def sparse(self, made: Mapping[str, Copy]) -> Sparse:
        """For the decoder, with the copies that it reads."""
        return Sparse(self.values, self.paths, self.projections, made, self.importance)


def dense(n_layers: int) -> Thresholds:
    """Nothing is left out."""
    return Thresholds(
        np.full((n_layers, N_SITES), ALL),
        np.zeros(n_layers, np.int64),
        np.zeros((n_layers, 2), np.int64),
    )


def left_whole(chosen: Thresholds) -> Thresholds:
    """Nothing is left out, since tokens that `chosen` was in force for were not faster."""
    sites = tuple(
        site._replace(
            active=1.0, kl=0.0, read_bytes=site.dense_bytes, saved_s=0.0, pays_below=0.0,
            kl_there=None,
        )
        if site.active < 1
        else site
        for site in chosen.sites
    )  # fmt: skip
    return replace(dense(len(chosen.paths)), sites=sites)


def sizes_of(decoder: Decoder, texts: Texts) -> list[tuple[float, ...]]:
    """Of each layer, a threshold of each site that about half of the values are above."""
    return [each.thresholds(1) for each in statistics(decoder, pieces_of(texts, 1), (0, 0.5))]


class Study:
    """A decoder on texts: what each option would cost, to be asked for several budgets."""

    def __init__(
        self, decoder: Decoder, texts: Texts, costs: Costs, on_progress: Progress | None = None
    ) -> None:
        self._decoder, self._costs = decoder, costs
        self._report = on_progress or (lambda stage, fraction: None)
        self._report("what the layers lose", 0.0)
        self._pieces = pieces_of(texts)
        self._reference = [distributions(decoder, piece) for piece in self._pieces]
        gated = decoder.config.gated
        seen = statistics(decoder, pieces_of(texts))
        self._importance = np.stack([each.neurons.importance for each in seen])
        self._options = [
            options
            for layer, each in enumerate(seen)
            for options in options_of(layer, each, costs, gated)
        ]
        self._rates = [self._rate(options) for options in self._options]

    def best(self, budget: float) -> Thresholds:
        """The thresholds that save most time at a KL of at most `budget` nats on the texts.

        Sites where nothing pays stay dense, and all do if that saves less than LEAST_GAIN.
        """
        best, allowed = self._thresholds([0] * len(self._options)), budget
        for _ in range(4):
            found = self._thresholds(self._allocated(allowed))
            if found.is_dense:
                break
            kl = self._loss(self._pieces, self._reference, found.values)
            found = replace(found, kl=kl)
            if kl <= budget and _saved(found) > _saved(best):
                best = found
            if 0.9 * budget < kl <= budget:
                break
            allowed *= min(max(0.95 * budget / max(kl, 1e-9), 0.2), 5.0)
        if _saved(best) < LEAST_GAIN * self._costs.token_s:
            return self._thresholds([0] * len(self._options))
        return best

    def _loss(self, pieces: Texts, reference: Sequence[Dense], values: Floats) -> float:
        return loss(self._decoder, pieces, reference, values, self._importance)

    def _rate(self, options: Options) -> float:
        """KL of a site for all of its energy; 0 where nothing that saves time drops any."""
        dropped = options.dropped.sum(axis=1)
        usable = [at for at in options.paying if dropped[at] > 1e-9]
        if not usable:
            return 0.0
        self._report("what the layers lose", options.layer / self._decoder.config.n_layers)
        at = min(usable, key=lambda at: abs(np.log(dropped[at] / _DROPPED)))
        values = dense(self._decoder.config.n_layers).values
        values[options.layer, list(options.sites)] = options.thresholds[at]
        some = self._pieces[:: -(-len(self._pieces) // _RATE_PIECES)]
        reference = self._reference[:: -(-len(self._pieces) // _RATE_PIECES)]
        return self._loss(some, reference, values) / float(dropped[at])

    def _allocated(self, allowed: float) -> list[int]:
        """The best options that are expected to lose `allowed` together at most."""
        low, high = 1e-9, 1e9  # seconds a nat
        pairs = list(zip(self._options, self._rates, strict=True))
        for _ in range(80):
            price = (low * high) ** 0.5
            lost = sum(
                rate * options.dropped[options.best(price, rate)].sum() for options, rate in pairs
            )
            low, high = (low, price) if lost <= allowed else (price, high)
        return [options.best(high, rate) for options, rate in pairs]

    def _thresholds(self, chosen: Sequence[int]) -> Thresholds:
        found, sites = dense(self._decoder.config.n_layers), []
        for options, rate, at in zip(self._options, self._rates, chosen, strict=True):
            layer, path = options.layer, int(options.paths[at])
            found.values[layer, list(options.sites)] = options.thresholds[at]
            if UP_SITE in options.sites:
                found.paths[layer] = path
            else:
                found.projections[layer, options.sites[0] - QKV_SITE] = path != DENSE
            sites += self._site_costs(options, rate, at)
        return replace(found, sites=tuple(sites), importance=self._importance)

    def _site_costs(self, options: Options, rate: float, at: int) -> list[SiteCost]:
        paying = options.paying
        kl_there = None
        if len(paying):
            kl_there = rate * float(options.dropped[paying].sum(axis=1).min())
        return [
            site_cost(self._decoder, options.layer, site, float(options.active[at, k]))._replace(
                kl=rate * float(options.dropped[at, k]),
                saved_s=float(options.saved[at, k]),
                pays_below=self._costs.break_even(site),
                kl_there=kl_there,
            )
            for k, site in enumerate(options.sites)
            if site != UP_SITE or self._decoder.config.gated
        ]


def site_cost(decoder: Decoder, layer: int, site: int, active: float) -> SiteCost:
    """A line of the report with what follows from how much is active."""
    matrices = decoder.weights.matrices
    n_dense = n_read = 0.0
    for kind in _KINDS[site]:
        weight = matrices[copies.matrix_of(f"layers.{layer}.{kind}")]
        n_dense += weight.data.nbytes
        n_read += copies.bytes_read(weight, kind, active) if active < 1 else weight.data.nbytes
    return SiteCost(layer, SITES[site], active, None, n_dense, n_read, None, None, None)


def calibrate(decoder: Decoder, texts: Texts, budget: float, costs: Costs) -> Thresholds:
    """See Study.best."""
    return Study(decoder, texts, costs).best(budget)


def forced(decoder: Decoder, texts: Texts, share: float, sites: Sequence[int] = ()) -> Thresholds:
    """So much left out in every layer, whatever is lost and whether or not it pays.

    sites  default: of feed-forwards; in gated models rows of `up` and inputs of `down` by the gate,
           in others inputs only. QKV_SITE, O_SITE: the inputs of those
    The shares are those of the texts, met layer by layer: what is left out below changes what is
    seen above.
    """
    config, pieces = decoder.config, pieces_of(texts)
    sites = sites or (UP_SITE if config.gated else DOWN_SITE,)
    found = dense(config.n_layers)
    importance = None
    for _ in range(3):
        seen = statistics(decoder, pieces, (0, share), found.values, 0, importance)
        if importance is None:  # of the dense model
            importance = np.stack([each.neurons.importance for each in seen])
        for layer, each in enumerate(seen):
            for site in sites:
                found.values[layer, site] = each.thresholds(1)[site]
    for site in sites:
        if site in (UP_SITE, DOWN_SITE):
            found.paths[:] = BY_ROWS if site == UP_SITE else BY_INPUTS
        else:
            found.projections[:, site - QKV_SITE] = 1
    active = {site: 1 - share for site in sites}
    if UP_SITE in active:
        active[DOWN_SITE] = 1 - share
    lines = [
        site_cost(decoder, layer, site, active[site])
        for layer in range(config.n_layers)
        for site in sorted(active)
    ]
    return replace(found, sites=tuple(lines), kl=np.nan, importance=importance)


def _saved(thresholds: Thresholds) -> float:
    return sum(site.saved_s or 0.0 for site in thresholds.sites)
