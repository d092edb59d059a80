"""What a level read of the layers' matrices, by layer and site."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from engine.sparsity.costs import site_widths
from engine.sparsity.level_cost import Part, SiteCost
from engine.sparsity.thresholds import SITES, site_cost

if TYPE_CHECKING:
    from engine.decoder import Decoder

_COLUMNS = {name: site for site, name in SITES.items()}


def seen(
    decoder: Decoder, sites: Sequence[SiteCost], n_active: NDArray[np.int64], n_tokens: int
) -> tuple[SiteCost, ...]:
    """The sites with what n_tokens read of them: n_active (n_layers, N_SITES) rows and inputs."""
    shares = n_active / (n_tokens * site_widths(decoder.config))
    return tuple(
        _with_active(decoder, site, float(shares[site.layer, _COLUMNS[site.site]]))
        if site.active < 1
        else site
        for site in sites
    )


def _with_active(decoder: Decoder, site: SiteCost, active: float) -> SiteCost:
    measured = site_cost(decoder, site.layer, _COLUMNS[site.site], active)
    return site._replace(active=active, read_bytes=measured.read_bytes)


def parts_of(sites: Sequence[SiteCost]) -> list[Part]:
    """One for each kind of site, all layers together."""
    found = []
    for name in SITES.values():
        some = [site for site in sites if site.site == name]
        if not some:
            continue
        n_dense = sum(site.dense_bytes for site in some)
        n_sparse = sum(site.active < 1 for site in some)
        found.append(
            Part(
                name,
                n_dense,
                sum(site.read_bytes for site in some),
                sum(site.active * site.dense_bytes for site in some) / n_dense,
                f"in {n_sparse} of {len(some)} layers" if n_sparse else "computed whole",
            )
        )
    return found
