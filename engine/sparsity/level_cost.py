"""The figures of a level: what was skipped, and how far from the dense model that led."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from engine.sparsity.knob import Level


class Part(NamedTuple):
    """One kind of a token's work, and what was skipped of it.

    name         such as "head"
    dense_bytes  what a token reads of it without sparsity
    read_bytes   what a token read, on average over those that were measured
    active       the share of the work that was done, 0 to 1
    detail       what decides, in a few words
    is_weights   False for keys and values, which a token reads besides
    """

    name: str
    dense_bytes: float
    read_bytes: float
    active: float
    detail: str = ""
    is_weights: bool = True


class SiteCost(NamedTuple):
    """What a level leaves out at one place of a layer. None: not measured.

    site         "up" (its rows, by the gate), "down" (its inputs, by the product), "q k v", "o"
    active       share of the rows or inputs that are read, 0 to 1
    kl           nats that this is expected to cost
    dense_bytes  of its matrices
    read_bytes   what a token reads of them, expected
    saved_s      seconds a token, expected
    pays_below   the active share below which skipping saves time on this machine; 0 = never
    kl_there     what the layer alone would lose at the gentlest choice that saves time; None also
                 where there is none
    """

    layer: int
    site: str
    active: float
    kl: float | None
    dense_bytes: float
    read_bytes: float
    saved_s: float | None
    pays_below: float | None
    kl_there: float | None


class LevelCost(NamedTuple):
    """A level beside the dense model, over the same tokens.

    n_tokens  that were predicted
    kl        mean Kullback-Leibler divergence of the level's next token from the dense one, in nats
    kl_error  its standard error, each token taken as one observation
    same      share of the tokens at which the likeliest next one is the same
    dense_s   median seconds of a dense token
    level_s   the same at this level
    n_bytes   that a dense token reads: weights, and what parts besides them describe
    parts     what may be skipped, averaged over the tokens
    sites     of the layers, one a layer and place; () where nothing of them is ever skipped
    """

    level: Level
    n_tokens: int
    kl: float
    kl_error: float
    same: float
    dense_s: float
    level_s: float
    n_bytes: float
    parts: tuple[Part, ...]
    sites: tuple[SiteCost, ...] = ()

    @property
    def read_bytes(self) -> float:
        """What a token reads at this level."""
        return self.n_bytes - sum(part.dense_bytes - part.read_bytes for part in self.parts)

    def record(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "level": self.level,
            "tokens": self.n_tokens,
            "kl": self.kl,
            "kl_error": self.kl_error,
            "same_likeliest": self.same,
            "tokens_per_s": 1 / self.level_s,
            "dense_tokens_per_s": 1 / self.dense_s,
            "bytes_per_token": round(self.read_bytes),
            "dense_bytes_per_token": round(self.n_bytes),
            "parts": [part._asdict() for part in self.parts],
            "sites": [site._asdict() for site in self.sites],
        }

    @classmethod
    def of_list(cls, values: Sequence[Any]) -> LevelCost:
        """From what JSON makes of one."""
        *numbers, parts, sites = values
        nested = tuple(map(Part._make, parts)), tuple(map(SiteCost._make, sites))
        return cls._make([*numbers, *nested])
