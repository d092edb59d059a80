"""The figures of a level: what was skipped, and how far from the dense model that led."""

from __future__ import annotations

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
        }
