"""What each site of a layer could leave out: what that saves, and how much of its output it drops.

One table for a feed-forward, whose two sites decide together, one for q, k and v, one for o. The
first row is always to leave out nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.kernels.sparse import BY_INPUTS, BY_ROWS, DENSE
from engine.kernels.tables import DOWN_SITE, O_SITE, QKV_SITE, UP_SITE
from engine.sparsity.costs import Costs
from engine.sparsity.losses import ALL
from engine.sparsity.statistics import LEVELS, Inputs, Neurons, Statistics

Numbers = NDArray[np.float64]


class Options(NamedTuple):
    """n ways to treat k sites of a layer.

    layer, sites
    paths       int64 (n,): DENSE, or how what is active is read
    thresholds  float32 (n, k)
    active      float64 (n, k): shares of rows or inputs
    saved       float64 (n, k): seconds a token
    dropped     float64 (n, k): energy of the output, of all; what one site drops after those before
    """

    layer: int
    sites: tuple[int, ...]
    paths: NDArray[np.int64]
    thresholds: NDArray[np.float32]
    active: Numbers
    saved: Numbers
    dropped: Numbers

    @property
    def paying(self) -> NDArray[np.intp]:
        """The options that save time."""
        return np.flatnonzero((self.paths != DENSE) & (self.saved.sum(axis=1) > 0))

    def best(self, price: float, rate: float) -> int:
        """The option with most time left when a nat costs so many seconds; rate: nats for all of
        the energy."""
        worth = self.saved.sum(axis=1) - price * rate * self.dropped.sum(axis=1)
        at = int(worth.argmax())
        return at if worth[at] > 0 else 0


def options_of(layer: int, seen: Statistics, costs: Costs, gated: bool) -> list[Options]:
    """The tables of a layer."""
    return [
        _feed_forward(layer, seen.neurons, costs, gated),
        _projection(layer, QKV_SITE, seen.qkv, costs),
        _projection(layer, O_SITE, seen.o, costs),
    ]


def _feed_forward(layer: int, seen: Neurons, costs: Costs, gated: bool) -> Options:
    sites, n, inputs = (UP_SITE, DOWN_SITE), len(LEVELS), seen.active_inputs
    rows, of_rows = (np.repeat(table[:, :1], n, axis=1) for table in (inputs, seen.dropped))
    thresholds = np.stack(np.meshgrid(*seen.levels, indexing="ij"), axis=2).astype(np.float32)
    saved = costs.saved(BY_INPUTS, 1.0, inputs)
    more = costs.saved(BY_ROWS, rows, inputs) - saved

    def part(path: int, at: slice, rows: Numbers, more: Numbers, of_rows: Numbers) -> Options:
        pairs = ((rows, inputs), (more, saved), (of_rows, seen.dropped - of_rows))
        columns = [np.stack([one[at], other[at]], axis=2).reshape(-1, 2) for one, other in pairs]
        paths = np.full(len(columns[0]), path, np.int64)
        return Options(layer, sites, paths, thresholds[at].reshape(-1, 2), *columns)

    # where all rows are read the gate has no threshold, and the reverse
    none = np.zeros((n, n))
    by_inputs = part(BY_INPUTS, slice(1), none + 1, none, none)
    if not gated:
        return _joined([by_inputs])
    return _joined([by_inputs, part(BY_ROWS, slice(1, None), rows, more, of_rows)])


def _projection(layer: int, site: int, seen: Inputs, costs: Costs) -> Options:
    paths = np.full(len(LEVELS), BY_INPUTS, np.int64)
    columns = (seen.active, costs.saved_at(site, seen.active), seen.dropped)
    active, saved, dropped = (column[:, None] for column in columns)
    return _joined([Options(layer, (site,), paths, seen.levels[:, None], active, saved, dropped)])


def _joined(parts: Sequence[Options]) -> Options:
    """Of one layer's sites, behind the option to leave out nothing."""
    first = parts[0]
    k = len(first.sites)
    nothing = Options(
        first.layer,
        first.sites,
        np.array([DENSE]),
        np.full((1, k), ALL),
        np.ones((1, k)),
        np.zeros((1, k)),
        np.zeros((1, k)),
    )
    columns = zip(*[part[2:] for part in (nothing, *parts)], strict=True)
    return Options(first.layer, first.sites, *map(np.concatenate, columns))
