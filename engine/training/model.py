"""The model that is trained: a checkpoint's decoder with parameters in some places.

The fast path is the one of Llama's flags; all others go through torch's own operations.
Letters: T tokens of a batch, n of them with a label, E hidden_size, V vocab_size.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.checkpoint import checkpoint as recompute

from engine.checkpoints import Checkpoint, open_checkpoint
from engine.config import DecoderConfig
from engine.plan import Rotations
from engine.training.attention import Positions, rotations
from engine.training.bases import rounds
from engine.training.building import Builder
from engine.training.fast_path import is_fast
from engine.training.layers import Layer, norm
from engine.training.llama import LlamaLayer, Stream
from engine.training.loss import Head, Loss, cross_entropy
from engine.training.methods import Method
from engine.training.ops.attention import Documents
from engine.training.packing import Batch

Tensor = Any
Float32 = NDArray[np.float32]


class Trainable(torch.nn.Module):  # type: ignore[misc]
    """`trainable`: canonical name -> parameter, "layers.3.wq.lora_a" or "layers.3.wq".

    Parameters of one product are views of one buffer, so that they are multiplied at once: change
    them in place (`copy_` under torch.no_grad()), never by assigning to `.data`.
    """

    config: DecoderConfig
    trainable: dict[str, Tensor]
    layers: list[Layer | LlamaLayer]
    checkpointing: bool  # layers are computed again in backward, to keep less

    @classmethod
    def build(
        cls,
        model: str | Path | Checkpoint,
        method: Method,
        *,
        base: str = "f32",
        seed: int = 0,
        checkpointing: bool = False,
        head_mass: float = 1.0,
        on_progress: Callable[[str, float], None] | None = None,
    ) -> Trainable:
        """Read a checkpoint; `base` (a file of engine/training/bases) keeps what is frozen,
        and says how trained matrices are multiplied.

        head_mass  see loss.Head
        ValueError and FileNotFoundError, one line, for a model or settings that do not fit.
        """
        checkpoint = open_checkpoint(Path(model)) if isinstance(model, str | Path) else model
        config = checkpoint.decoder_config()
        self = cls()
        builder = Builder(checkpoint, config, method.parts(config), base, seed)
        self.config, self.checkpointing = config, checkpointing
        self._parts = builder.parts
        self._embedding = builder.tensor("embedding")
        learned = config.position == "learned"
        self._positions = builder.tensor("position_embedding") if learned else None
        self.layers = list(builder.layers(on_progress))
        final = {name: builder.optional(name) for name in ("final_norm", "final_norm.bias")}
        self._final = {name: vector for name, vector in final.items() if vector is not None}
        weight = self._embedding if config.tied_head else builder.tensor("head")
        bias = builder.optional("head.bias")
        self.logits_head = Head(
            weight, bias, config.logit_scale, head_mass, config.logit_softcap, rounds(base)
        )
        self.trainable = builder.trainable
        for name, parameter in self.trainable.items():
            self.register_parameter(name.replace(".", ":"), parameter)
        self._rotations = Rotations(config)
        return self

    @property
    def n_trainable(self) -> int:
        """Numbers that are trained."""
        return sum(int(p.numel()) for p in self.trainable.values())

    def forward(self, batch: Batch) -> Loss:
        """The batch's sum of -log p, differentiable, and how many labels were likeliest."""
        return cross_entropy(self.states(batch), self.logits_head, torch.from_numpy(batch.targets))

    def states(self, batch: Batch) -> Tensor:
        """(n, E) float32, differentiable: what the head is multiplied with for each label."""
        rows, stream = torch.from_numpy(batch.rows), self._stream(batch)
        h = stream.x[rows] if stream.y is None else stream.x[rows] + stream.y[rows]
        return norm(self.config, self._final, "final_norm", h)

    def logits(self, batch: Batch) -> Tensor:
        """(T, V) float32, without a gradient."""
        with torch.no_grad():
            h = norm(self.config, self._final, "final_norm", self._stream(batch).total())
            return self.logits_head.logits(h)

    def _stream(self, batch: Batch) -> Stream:
        """What the final norm is taken of."""
        token_ids, positions = (torch.from_numpy(a) for a in (batch.token_ids, batch.positions))
        x = torch.nn.functional.embedding(token_ids, self._embedding)
        if self.config.embedding_scale != 1:
            x = x * self.config.embedding_scale
        if self._positions is not None:
            x = x + torch.nn.functional.embedding(positions, self._positions)
        cos, sin = rotations(self._rotations, batch.lengths)
        if is_fast(self.config):
            documents, y = Documents.of(batch.lengths, cos, sin), None
            for layer in self.layers:
                x, y = self._run(layer, x, y, documents)
            return Stream(x, y)
        at = Positions(batch.lengths, cos[:, None], sin[:, None])
        for layer in self.layers:
            x = self._run(layer, x, at)
        return Stream(x)

    def _run(self, layer: Any, *arguments: Any) -> Any:
        if self.checkpointing and torch.is_grad_enabled():
            return recompute(layer, *arguments, self.training, use_reentrant=False)
        return layer(*arguments, self.training)

    def adapter_matrices(self) -> dict[str, tuple[Float32, Float32]]:
        """Canonical matrix name -> A (rank, n_in) and B (n_out, rank), copies."""
        return {
            name: (self._copy(f"{name}.lora_a"), self._copy(f"{name}.lora_b"))
            for name in sorted(self._parts.adapted)
        }

    def full_tensors(self) -> dict[str, Float32]:
        """Canonical name -> values of every tensor that is trained itself, copies."""
        return {name: self._copy(name) for name in sorted(self._parts.whole)}

    def _copy(self, name: str) -> Float32:
        values: Float32 = self.trainable[name].detach().numpy().copy()
        return values
