"""Full fine-tuning: every matrix, norm and bias is trained; a tied head is the embedding itself."""

from __future__ import annotations

from dataclasses import dataclass

from engine.config import DecoderConfig
from engine.shapes import matrix_shapes, vector_shapes
from engine.training.methods import Parts


@dataclass(frozen=True, slots=True)
class Method:
    """Nothing to choose."""

    def parts(self, config: DecoderConfig) -> Parts:
        """All names."""
        return Parts(frozenset(matrix_shapes(config)) | frozenset(vector_shapes(config)))
