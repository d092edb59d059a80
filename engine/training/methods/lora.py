"""LoRA: beside a frozen matrix W, a product of two thin ones is trained, W + alpha / rank · B A.

Hu et al. 2021, https://arxiv.org/abs/2106.09685. B begins at zero, so that training begins at the
model as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.config import DecoderConfig
from engine.training.methods import Parts

TARGETS = ("wq", "wk", "wv", "wo", "w_gate", "w_up", "w_down")


@dataclass(frozen=True, slots=True)
class Method:
    """targets: "all" or names of TARGETS with commas; n_layers: the last so many, None = all."""

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: str = "all"
    n_layers: int | None = None

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"rank must be at least 1, got {self.rank}")
        if not self.alpha > 0:
            raise ValueError(f"alpha must be positive, got {self.alpha}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}; use 0 to turn it off")
        if self.n_layers is not None and self.n_layers < 1:
            raise ValueError(f"n_layers must be at least 1, got {self.n_layers}")
        for name in self._targets():
            if name not in TARGETS:
                raise ValueError(
                    f"unknown target {name!r} of LoRA; known are all, {', '.join(TARGETS)}"
                )

    def _targets(self) -> tuple[str, ...]:
        if self.targets == "all":
            return TARGETS
        return tuple(name.strip() for name in self.targets.split(","))

    def parts(self, config: DecoderConfig) -> Parts:
        """Adapters beside the targets of the last n_layers layers."""
        first = max(0, config.n_layers - (self.n_layers or config.n_layers))
        targets = set(self._targets())
        if not config.gated:
            targets.discard("w_gate")
            if not targets:
                raise ValueError(
                    f"targets {self.targets!r}: the feed-forward of {config.architecture} has no "
                    "gate; choose w_up"
                )
        names = {f"layers.{i}.{name}" for i in range(first, config.n_layers) for name in targets}
        return Parts(frozenset(), frozenset(names), self.rank, self.alpha / self.rank, self.dropout)
