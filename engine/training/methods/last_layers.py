"""The last layers are trained as they are, and the final norm; all below is frozen."""

from __future__ import annotations

from dataclasses import dataclass

from engine.config import DecoderConfig
from engine.shapes import matrix_shapes, vector_shapes
from engine.training.methods import Parts


@dataclass(frozen=True, slots=True)
class Method:
    """n_layers: how many layers, from the last one down."""

    n_layers: int = 4

    def __post_init__(self) -> None:
        if self.n_layers < 1:
            raise ValueError(f"n_layers must be at least 1, got {self.n_layers}")

    def parts(self, config: DecoderConfig) -> Parts:
        """Every tensor of the last n_layers layers, and the final norm."""
        if self.n_layers > config.n_layers:
            raise ValueError(
                f"n_layers {self.n_layers} is more than the {config.n_layers} of this model"
            )
        first = config.n_layers - self.n_layers
        prefixes = tuple(f"layers.{i}." for i in range(first, config.n_layers))
        names = [*matrix_shapes(config), *vector_shapes(config)]
        return Parts(frozenset(n for n in names if n.startswith((*prefixes, "final_norm"))))
