"""The tensors that are to be written: a checkpoint's, with an adapter merged into them, or others.

All arithmetic is float32, one tensor in memory at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.adapters import Adapter, pairs_for
from engine.checkpoints import Checkpoint, open_checkpoint
from engine.checkpoints.huggingface import HuggingFaceCheckpoint
from engine.head_rows import in_halves, interleaved, n_heads_of, require_whole_rotation
from engine.shapes import all_shapes

Floats = NDArray[np.float32]


class Source:
    """A checkpoint as it is to be written.

    adapter    is merged into the matrices that it is for
    tensors    canonical name -> values in place of the checkpoint's, rows in its order: what full
               fine-tuning leaves
    """

    def __init__(
        self,
        checkpoint: Checkpoint | str | Path,
        adapter: Adapter | None = None,
        tensors: Mapping[str, Floats] | None = None,
    ) -> None:
        if isinstance(checkpoint, str | Path):
            checkpoint = open_checkpoint(Path(checkpoint))
        self.checkpoint, self.adapter = checkpoint, adapter
        self.config = checkpoint.decoder_config()
        self._tensors = dict(tensors or {})
        self._pairs = pairs_for(adapter, self.config) if adapter else {}
        self._shapes = all_shapes(self.config)
        for name, values in self._tensors.items():
            if self._shapes.get(name) != values.shape:
                raise ValueError(
                    f"{name} of shape {values.shape} is no tensor of {checkpoint.path.name}, which "
                    f"has {self._shapes.get(name)}"
                )

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Canonical name -> shape of everything that the decoder needs."""
        return self._shapes

    def is_changed(self, name: str) -> bool:
        """Whether a tensor differs from the checkpoint's."""
        return name in self._tensors or name in self._pairs

    def tensor(self, name: str, neighbours: bool) -> Floats:
        """Values in float32.

        neighbours  whether rows of wq and wk are to stand so that the rotation pairs neighbours, as
                    in GGUF files of llama, or the halves of a head, as in Hugging Face's
        """
        values = self._values(name)
        if self.config.rope.interleaved == neighbours:
            return values
        if not (n_heads := n_heads_of(name, self.config)):
            return values
        require_whole_rotation(self.config)
        return interleaved(values, n_heads) if neighbours else in_halves(values, n_heads)

    def stored(self, names: Sequence[str]) -> Floats | None:
        """The values of a Hugging Face checkpoint's own tensor, of which these are the parts: not
        by way of the decoder's, where norms with an offset would be rounded. None where something
        changed, or from another container."""
        if not isinstance(self.checkpoint, HuggingFaceCheckpoint):
            return None
        if any(self.is_changed(name) for name in names):
            return None
        return self.checkpoint.stored(names[0]).float32()

    def _values(self, name: str) -> Floats:
        if name in self._tensors:
            return self._tensors[name]
        tensor = self.checkpoint.tensor(name)
        if tensor.shape != self._shapes[name]:
            raise ValueError(
                f"{self.checkpoint.path.name}: {tensor.name} has shape {tensor.shape}, its config "
                f"asks for {self._shapes[name]}"
            )
        values = tensor.float32()
        if self.adapter is not None and name in self._pairs:
            a, b = self._pairs[name]
            values = values + (b @ a) * np.float32(self.adapter.scale)
        return values
