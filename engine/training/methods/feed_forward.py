"""The feed-forwards' matrices are trained as they are; everything else is frozen."""

from __future__ import annotations

from dataclasses import dataclass

from engine.config import DecoderConfig
from engine.shapes import matrix_shapes
from engine.training.methods import Parts

KINDS = ("w_gate", "w_up", "w_down")


@dataclass(frozen=True, slots=True)
class Method:
    """Nothing to choose."""

    def parts(self, config: DecoderConfig) -> Parts:
        """The matrices of all feed-forwards, and nothing else but their biases."""
        names = {name for name in matrix_shapes(config) if name.endswith(KINDS)}
        biases = {f"{name}.bias" for name in names} if config.mlp_bias else set()
        return Parts(frozenset(names | biases))
