"""From a checkpoint to the parts of a trainable model: what is frozen, what is a parameter."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from engine.checkpoints import Checkpoint
from engine.config import DecoderConfig
from engine.kernels.layout import StoredTensor
from engine.shapes import matrix_shapes, vector_shapes
from engine.training.bases import freeze, is_lean, rounds, width
from engine.training.fast_path import is_fast
from engine.training.layers import GROUPS, NORMS, Layer
from engine.training.llama import LlamaLayer
from engine.training.methods import Parts
from engine.training.projection import RANKS, Adapters, Projection
from engine.weights import check_finite, checked_tensor

Tensor = Any


@dataclass(eq=False)
class Builder:
    """Reads a checkpoint's tensors once each; `trainable` grows with the parameters made."""

    checkpoint: Checkpoint
    config: DecoderConfig
    parts: Parts
    base: str
    seed: int
    trainable: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._matrices, self._vectors = matrix_shapes(self.config), vector_shapes(self.config)
        for name in sorted(self.parts.whole | self.parts.adapted):
            assert name in self._matrices or name in self._vectors, name

    def stored(self, name: str) -> StoredTensor:
        """ValueError where it is missing, of another shape or not finite."""
        shape = self._matrices.get(name) or (self._vectors[name],)
        tensor = checked_tensor(self.checkpoint, name, shape)
        for start in range(0, shape[0], 4096):
            values = tensor.float32(start, min(start + 4096, shape[0]))
            check_finite(self.checkpoint, tensor.name, values)
        return tensor

    def tensor(self, name: str) -> Tensor:
        """float32, a parameter where it is trained."""
        values = torch.from_numpy(self.stored(name).float32().copy())
        return self._parameters([name], values)[0] if name in self.parts.whole else values

    def optional(self, name: str) -> Tensor | None:
        """The same, None where this model has no such vector."""
        return self.tensor(name) if name in self._vectors else None

    def layers(
        self, on_progress: Callable[[str, float], None] | None = None
    ) -> Iterator[Layer | LlamaLayer]:
        """All layers, from the first."""
        fast = is_fast(self.config)
        for i in range(self.config.n_layers):
            if on_progress:
                on_progress("reading weights", i / self.config.n_layers)
            projections = {group: self._projection(i, group) for group in GROUPS}
            names = (*NORMS, "q_norm", "k_norm")
            kinds = [f"{name}{suffix}" for name in names for suffix in ("", ".bias")]
            found = {kind: self.optional(f"layers.{i}.{kind}") for kind in kinds}
            vectors = {kind: vector for kind, vector in found.items() if vector is not None}
            if fast:
                yield LlamaLayer(self.config, projections, vectors, projections["qkv"].width)
            else:
                yield Layer(self.config, i, projections, vectors)

    def _projection(self, layer: int, group: str) -> Projection:
        names = [f"layers.{layer}.{kind}" for kind in GROUPS[group]]
        names = [name for name in names if name in self._matrices]
        stored = [self.stored(name) for name in names]
        sizes = [tensor.shape[0] for tensor in stored]
        bias_names = [f"{name}.bias" for name in names if f"{name}.bias" in self._vectors]
        biases = [self.stored(name).float32() for name in bias_names]
        bias = torch.from_numpy(np.concatenate(biases)) if biases else None
        projection = Projection(sizes, bias=bias)
        if self.parts.whole.isdisjoint(names):
            projection.base, projection.width = freeze(self.base, stored), width(self.base)
            projection.is_lean = is_lean(self.base)
            projection.adapters = self._adapters(names, sizes)
        else:
            weight = np.concatenate([tensor.float32(0, tensor.shape[0]) for tensor in stored])
            projection.weight = torch.from_numpy(weight)
            projection.weights = self._parameters(names, projection.weight)
            projection.rounded = rounds(self.base)
            if biases:
                projection.biases = self._parameters(bias_names, projection.bias)
        return projection

    def _parameters(self, names: list[str], buffer: Tensor) -> list[Tensor]:
        """Parameters that are views of one buffer, one after the other by rows."""
        sizes = [(self._matrices.get(name) or (self._vectors[name],))[0] for name in names]
        made = [torch.nn.Parameter(part) for part in buffer.split(sizes)]
        self.trainable.update(zip(names, made, strict=True))
        return made

    def _adapters(self, names: list[str], sizes: list[int]) -> Adapters | None:
        parts, starts = self.parts, np.cumsum([0, *sizes])
        adapted = [i for i, name in enumerate(names) if name in parts.adapted]
        if not adapted:
            return None
        ranks = len(adapted) * parts.rank
        a = torch.zeros(-(-ranks // RANKS) * RANKS, self._matrices[names[0]][1])
        a[:ranks] = torch.from_numpy(np.concatenate([self._first_a(names[i]) for i in adapted]))
        a_parameters = [torch.nn.Parameter(part) for part in a[:ranks].split(parts.rank)]
        b = [torch.nn.Parameter(torch.zeros(sizes[i], parts.rank)) for i in adapted]
        for i, a_parameter, b_parameter in zip(adapted, a_parameters, b, strict=True):
            self.trainable[f"{names[i]}.lora_a"] = a_parameter
            self.trainable[f"{names[i]}.lora_b"] = b_parameter
        rows = [slice(int(starts[i]), int(starts[i + 1])) for i in adapted]
        wide = torch.zeros(int(starts[-1]), len(a), dtype=width(self.base))
        return Adapters(a, a_parameters, b, rows, parts.scale, parts.dropout, wide)

    def _first_a(self, name: str) -> np.ndarray[Any, np.dtype[np.float32]]:
        """A at the start, (rank, n_in): uniform as PEFT draws it, by seed and name."""
        n_in = self._matrices[name][1]
        rng = np.random.default_rng([self.seed, zlib.crc32(name.encode())])
        bound = 1 / np.sqrt(n_in)
        return rng.uniform(-bound, bound, (self.parts.rank, n_in)).astype(np.float32)
