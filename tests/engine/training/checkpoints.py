"""Checkpoints in memory and batches of random tokens, for the tests of training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.checkpoints import RawTensor
from engine.config import DecoderConfig
from engine.training.methods import method
from engine.training.model import Trainable
from engine.training.packing import Batch
from tests.engine.decoders import small_config
from tests.parity.reference import random_weights


@dataclass
class MemoryCheckpoint:
    """As much of a checkpoint as training reads."""

    settings: DecoderConfig
    values: dict[str, np.ndarray]
    path: Path = Path("memory")

    def decoder_config(self) -> DecoderConfig:
        return self.settings

    def tensor(self, name: str) -> RawTensor:
        values = np.ascontiguousarray(self.values[name], np.float32)
        return RawTensor(name, values.shape, "F32", values.reshape(-1).view(np.uint8))


def small_checkpoint(seed: int = 0, **flags: Any) -> MemoryCheckpoint:
    config = small_config(**flags)
    return MemoryCheckpoint(config, random_weights(config, np.random.default_rng(seed)))


def trainable(
    checkpoint: Any, name: str = "lora", *, base: str = "f32", **settings: Any
) -> Trainable:
    """A model ready for a step; settings of Trainable.build are those that begin with build_."""
    options = {
        k.removeprefix("build_"): settings.pop(k) for k in list(settings) if k[:6] == "build_"
    }
    return Trainable.build(checkpoint, method(name, **settings), base=base, **options)


def disturb_adapters(model: Trainable, seed: int = 1, size: float = 0.05) -> None:
    """B is no longer zero, so that A has a gradient."""
    import torch

    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for name, parameter in model.trainable.items():
            if name.endswith("lora_b"):
                noise = rng.standard_normal(tuple(parameter.shape)) * size
                parameter.copy_(torch.from_numpy(noise.astype(np.float32)))


def random_batch(
    lengths: Sequence[int], vocab_size: int, seed: int = 0, share: float = 0.6
) -> Batch:
    """Documents of random tokens; about `share` of them are labels."""
    rng = np.random.default_rng(seed)
    token_ids = rng.integers(0, vocab_size, sum(lengths))
    starts = np.cumsum([0, *lengths[:-1]])
    trained = rng.random(sum(lengths)) < share
    trained[starts] = False
    labels = np.flatnonzero(trained)
    positions = np.concatenate([np.arange(n) for n in lengths])
    return Batch(token_ids, positions, list(lengths), labels - 1, token_ids[labels])


def gradients(model: Trainable, batch: Batch) -> dict[str, np.ndarray]:
    """Canonical name -> gradient of the batch's total loss."""
    for parameter in model.trainable.values():
        parameter.grad = None
    model(batch).total.backward()
    return {name: p.grad.numpy().copy() for name, p in model.trainable.items()}


def cosine(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> float:
    """Of all gradients as one vector."""
    x, y = (np.concatenate([g[name].ravel() for name in sorted(a)]) for g in (a, b))
    return float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))
