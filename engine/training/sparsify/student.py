"""The student and its teacher: one model, whose frozen self says what comes next.

The teacher is the model as it was, dense. The student reads prompts densely, as the engine does,
and with its thresholds the tokens that it would have written itself, but for a share of documents
that it reads densely throughout: there it is to stay where it was.
Letters: T tokens, n of them before a label, E hidden_size.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from engine.sparsity.trained import Trained
from engine.training.loss import Loss, cross_entropy
from engine.training.model import Trainable
from engine.training.packing import Batch
from engine.training.sparsify.divergence import divergence
from engine.training.sparsify.gates import Gates, rows_of
from engine.training.sparsify.settings import SparsifySettings

Tensor = Any


class Student:
    """A Trainable to the loop (engine/training/updates.py), with another loss.

    While it trains: KL from the teacher plus the distance of hidden states, a number a label.
    While it is evaluated: the KL alone, at the thresholds of the goal.
    """

    def __init__(self, model: Trainable, settings: SparsifySettings, seed: int) -> None:
        self.model, self.settings, self.seed = model, settings, seed
        self.gates = Gates(model.config, rows_of(model.config, settings), settings.goal)
        self._teacher = _Teacher(model)
        self._matched: list[Tensor] | None = None
        self._rows: Tensor = None
        self._step = self._n_batches = 0
        self._trains = True
        self._known: dict[int, tuple[Batch, Tensor]] = {}  # the batch too, to keep its id
        for number, layer in enumerate(model.layers):
            layer.middle = self.gates.layer(number)
        watched: list[Any] = [
            _Watched(layer, self._watch if self._is_matched(number) else None)
            for number, layer in enumerate(model.layers)
        ]
        model.layers = watched

    def begin(self, step: int, done: float) -> None:
        """Before step number `step`, when this share of the run is done."""
        self.gates.follow()
        self._step, self._n_batches = step, 0
        self.gates.follows = self.settings.share_at(done) if done < self.settings.fixed else None

    @property
    def trainable(self) -> dict[str, Tensor]:
        """The model's."""
        return self.model.trainable

    def train(self, mode: bool = True) -> Student:
        """As torch's modules."""
        self._trains = mode
        self.gates.at_goal = not mode
        if not mode:
            self.gates.follow()
        self.model.train(mode)
        return self

    def logits(self, batch: Batch, sparse: Tensor | None = None) -> Tensor:
        """(T, V) float32 without a gradient; sparse (T,) bool: which tokens skip."""
        self.gates.sparse = sparse
        return self.model.logits(batch)

    def trained(self) -> Trained:
        """The goal's thresholds as the engine reads them."""
        gates = self.gates
        importance = gates.importance.copy() if gates.rows else None
        return Trained(gates.goal.copy(), gates.share, gates.rows, importance)

    def adapter_matrices(self) -> Any:
        """The model's."""
        return self.model.adapter_matrices()

    def full_tensors(self) -> Any:
        """The model's."""
        return self.model.full_tensors()

    def __call__(self, batch: Batch) -> Loss:
        """The sum over the batch's labels."""
        self._rows = torch.from_numpy(batch.rows)
        if not self._trains:
            if not self.gates.is_ready:
                self._observe(batch, self.settings.share_at(0.0))
                self.gates.follow()
            follows, self.gates.follows = self.gates.follows, None
            loss = self._kl(batch, labels(batch))
            self.gates.follows = follows
            return loss
        sparse = labels(batch) & ~self._dense_documents(batch)
        self._n_batches += 1
        if self.settings.control:
            return self._own_tokens(batch)
        return self._kl(batch, sparse)

    def dense_loss(self, batch: Batch) -> Loss:
        """The KL with nothing left out: how far the student drifted."""
        self._rows = torch.from_numpy(batch.rows)
        return self._kl(batch, None)

    def _kl(self, batch: Batch, sparse: Tensor | None) -> Loss:
        matches = self._trains and self.settings.hidden > 0
        theirs: list[Tensor] | None = [] if matches else None
        wanted = self._wanted(batch, theirs)
        ours: list[Tensor] | None = [] if matches else None
        self.gates.sparse, self._matched = sparse, ours
        total, agreed = divergence(self.model.states(batch), wanted, self.model.logits_head)
        self._matched = None
        if theirs and ours:
            total = total + self.settings.hidden * distance(ours, theirs)
        return Loss(total, len(batch.rows), int(agreed))

    def _wanted(self, batch: Batch, matched: list[Tensor] | None) -> Tensor:
        """The teacher's states (n, E); of batches to evaluate they are kept, which come again."""
        if not self._trains and id(batch) in self._known:
            return self._known[id(batch)][1]
        with self._teacher.speaks(), torch.no_grad():
            self.gates.sparse, self._matched = None, matched
            wanted = self.model.states(batch)
        if not self._trains:
            self._known[id(batch)] = batch, wanted
        return wanted

    def _own_tokens(self, batch: Batch) -> Loss:
        """Dense, and the rows' tokens are the teacher; thresholds are observed, not applied."""
        if self.gates.follows is not None:
            self._observe(batch, 0.0)
        self.gates.sparse = None
        targets = torch.from_numpy(batch.targets)
        return cross_entropy(self.model.states(batch), self.model.logits_head, targets)

    def _observe(self, batch: Batch, share: float) -> None:
        """Note the quantiles of a batch that is read densely."""
        gates, now = self.gates, self.gates.now.copy()
        before = gates.follows, gates.at_goal
        gates.follows, gates.at_goal, gates.sparse = share, False, labels(batch)
        gates.now[:] = -1
        with torch.no_grad():
            self.model.states(batch)
        gates.now[:] = now
        gates.follows, gates.at_goal = before

    def _dense_documents(self, batch: Batch) -> Tensor:
        """(T,) bool, by seed, step and batch alone: a resumed run draws the same."""
        rng = np.random.default_rng([self.seed, self._step, self._n_batches])
        chosen = rng.random(len(batch.lengths)) < self.settings.dense_share
        return torch.from_numpy(np.repeat(chosen, batch.lengths))

    def _is_matched(self, number: int) -> bool:
        return (number + 1) % self.settings.match == 0

    def _watch(self, x: Tensor) -> None:
        if self._matched is not None:
            self._matched.append(x[self._rows])


def labels(batch: Batch) -> Tensor:
    """(T,) bool: the tokens that the model would have written, and so reads one by one."""
    written = torch.zeros(len(batch.token_ids), dtype=torch.bool)
    written[torch.from_numpy(batch.rows) + 1] = True
    return written


def distance(ours: list[Tensor], theirs: list[Tensor]) -> Tensor:
    """Sum over rows of |ours - theirs|² / |theirs|², the mean over the layers (n, E)."""
    parts = [
        ((a - b).square().sum(1) / b.square().sum(1).clamp_min(1e-12)).sum()
        for a, b in zip(ours, theirs, strict=True)
    ]
    return torch.stack(parts).mean()


class _Watched:
    """A layer that tells what comes out of it."""

    def __init__(self, layer: Any, watch: Any) -> None:
        self.layer, self._watch = layer, watch

    def __call__(self, *arguments: Any) -> Any:
        out = self.layer(*arguments)
        if self._watch is not None:
            self._watch(out[0] + out[1] if isinstance(out, tuple) else out)
        return out


class _Teacher:
    """The frozen self of a model: without adapters, with the weights that it had."""

    def __init__(self, model: Trainable) -> None:
        found = [p for layer in model.layers for p in layer.projections.values()]
        self._kept = [
            (p, _copy(p.weight), _copy(p.bias))
            for p in found
            if p.weight is not None or p.adapters is not None
        ]
        self._require_all(model)

    @contextmanager
    def speaks(self) -> Iterator[None]:
        """Within, the model is the teacher."""
        ours = [(p, p.weight, p.bias, p.adapters) for p, _, _ in self._kept]
        for p, weight, bias in self._kept:
            p.weight, p.bias, p.adapters = weight, bias, None
        try:
            yield
        finally:
            for p, weight, bias, adapters in ours:
                p.weight, p.bias, p.adapters = weight, bias, adapters

    def _require_all(self, model: Trainable) -> None:
        """ValueError where something else than projections is trained."""
        for name in model.trainable:
            kind = name.split(".")[-1] if "lora" not in name else name.split(".")[-2]
            kind = name.split(".")[-2] if kind == "bias" else kind
            if kind not in _KINDS:
                raise ValueError(
                    f"{name} would be trained, which the teacher shares; sparsify takes method "
                    "feed_forward or lora"
                )


def _copy(values: Tensor | None) -> Tensor | None:
    return None if values is None else values.clone()


_KINDS = ("wq", "wk", "wv", "wo", "w_gate", "w_up", "w_down")
