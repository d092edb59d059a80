"""About a second before the first step: how to keep the frozen weights, how fast, how much memory.

The candidates for the base are tried on one short batch, forward and backward. What the CPU is
quick at (bf16, else int8, else int16, if any) is taken where it is quicker than float32 and its
gradient points the same way; how it points is measured, not believed. Of full fine-tuning, where
nothing is frozen, the base says only how trained matrices are multiplied. Nothing that the run
depends on is changed.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from data.files import megabytes
from engine.memory import available_bytes, used_bytes
from engine.shapes import matrix_shapes, vector_shapes
from engine.training.aims import Aim
from engine.training.bases import is_lean, width
from engine.training.fast_path import is_fast
from engine.training.methods import method
from engine.training.model import Trainable
from engine.training.optimizers import is_lazy
from engine.training.packing import Batch
from engine.training.products import has_amx, has_quick_bf16, has_quick_int8, has_quick_int16
from engine.training.settings import TrainSettings
from engine.training.subject import Subject
from engine.training.updates import clear, gradients

PROBE_TOKENS = 256
WARM_TOKENS = 32
MIN_COSINE = 0.98  # of the gradients with float32's: bf16 reaches 0.999, int8 0.994, int16 0.9999
_PIECE = 1 << 20  # numbers that float32 sums up well enough
LOGITS_BYTES = 100 << 20  # of the chunks that the loss is computed in
STATE_BYTES = {"adamw": 8, "adamw8bit": 2}  # a trained weight


class Probe(NamedTuple):
    """model is ready to train with `base`; cosine is None where nothing was compared."""

    model: Any
    base: str
    cosine: float | None
    tokens_per_s: float
    memory_bytes: int
    n_steps: int
    n_weights: int
    warnings: list[str]


class _Trial(NamedTuple):
    model: Any
    tokens_per_s: float
    gradient: Any  # (n,) float32, all trainable tensors one after the other


def probe(settings: TrainSettings, subject: Subject, aim: Aim) -> Probe:
    """The model is the aim's. ValueError when memory is short, in one line that says what to
    lower."""
    batches, times = subject.feed.first_window()
    if not batches:
        raise ValueError(f"no row of {settings.data} can be learned from; `train check` says why")
    n_weights = sum(vector_shapes(subject.config).values())
    n_weights += sum(math.prod(shape) for shape in matrix_shapes(subject.config).values())
    names = _candidates(settings, n_weights)
    batch = shortened(batches[0], PROBE_TOKENS)
    trials: dict[str, _Trial] = {}
    for name in names:
        trials[name] = _try(_build(settings, subject, name), batch)
    base, cosine, warnings = _choose(trials)
    plain, tokens_per_s, _ = trials[base]
    trials.clear()  # the models that are not taken are no part of what the run needs
    gc.collect()
    model = aim.model(plain, settings)
    if model is not plain:
        tokens_per_s = _tokens_per_s(model, batch)
        clear(model)
    memory = used_bytes() + _still_to_come(settings, subject, model, base)
    _require_room(settings, memory)
    return Probe(
        model=model,
        base=base,
        cosine=cosine,
        tokens_per_s=tokens_per_s,
        memory_bytes=memory,
        n_steps=_n_steps(settings, batches, times),
        n_weights=n_weights,
        warnings=warnings,
    )


def shortened(batch: Batch, n_tokens: int) -> Batch:
    """The first n_tokens of the batch; the whole batch when no label is among them."""
    lengths, total = [], 0
    for length in batch.lengths:
        lengths.append(min(length, n_tokens - total))
        total += lengths[-1]
        if total == n_tokens:
            break
    kept = batch.rows + 1 < total
    # a label's token must stand in the batch, and in the document that its row is of
    if not kept.any():
        return batch
    rows = batch.rows[kept]
    return Batch(
        batch.token_ids[:total], batch.positions[:total], lengths, rows, batch.targets[kept]
    )


def _candidates(settings: TrainSettings, n_weights: int) -> list[str]:
    """Bases to try, float32 first: it is what the others are compared with."""
    if settings.base != "auto":
        return [settings.base]
    available = available_bytes()
    if settings.method == "full":
        # two models with their gradients, and the gradients once more in a row
        is_roomy = available is None or 24 * n_weights < available / 2
        return ["f32", "bf16"] if has_amx() and is_roomy else ["f32"]
    # both stand in memory while they are compared
    if available is not None and 7 * n_weights >= available / 2:
        return ["int8"]
    if has_quick_bf16():
        return ["f32", "bf16"]
    if has_quick_int8():
        return ["f32", "int8"]
    return ["f32", "int16"] if has_quick_int16() else ["f32"]


def _build(settings: TrainSettings, subject: Subject, base: str) -> Trainable:
    return Trainable.build(
        subject.checkpoint,
        method(settings.method, **settings.method_settings()),
        base=base,
        seed=settings.seed,
        checkpointing=settings.checkpointing,
        head_mass=settings.head_mass,
    )


def _try(model: Any, batch: Batch) -> _Trial:
    model.train(False)  # without dropout, which would make two gradients differ
    tokens_per_s = _tokens_per_s(model, batch)
    found = [p.grad.reshape(-1) for p in model.trainable.values() if p.grad is not None]
    gradient = torch.cat(found) if found else torch.zeros(1)
    clear(model)
    model.train(True)
    return _Trial(model, tokens_per_s, gradient)


def _tokens_per_s(model: Any, batch: Batch) -> float:
    """Of a step forward and backward, whose gradient stays in the parameters."""
    gradients(model, [shortened(batch, WARM_TOKENS)])
    began = time.perf_counter()
    gradients(model, [batch])
    return len(batch.token_ids) / max(time.perf_counter() - began, 1e-9)


def _choose(trials: dict[str, _Trial]) -> tuple[str, float | None, list[str]]:
    """The base, the cosine of its gradient with float32's if both were tried, and warnings."""
    if len(trials) == 1:
        return next(iter(trials)), None, []
    name = next(name for name in trials if name != "f32")
    exact, quick = trials["f32"], trials[name]
    cosine = _cosine(exact.gradient, quick.gradient)
    if cosine < MIN_COSINE:
        said = f"its gradient has a cosine of {cosine:.3f} with float32's, less than {MIN_COSINE}"
        return "f32", None, [f"{name} is not used: {said}"]
    if quick.tokens_per_s < exact.tokens_per_s:
        return "f32", None, []
    return name, cosine, []


def _cosine(a: Any, b: Any) -> float:
    """Of the angle between (n,) and (n,): over all numbers of a model float32 would give 1.03."""
    pieces = zip(a.split(_PIECE), b.split(_PIECE), strict=True)
    sums = torch.stack([torch.stack([x @ y, x @ x, y @ y]) for x, y in pieces]).double().sum(0)
    return float(sums[0] / (sums[1] * sums[2]).sqrt().clamp_min(1e-30))


def _n_steps(settings: TrainSettings, batches: Sequence[Batch], times: float) -> int:
    """Of the whole run, if all rows are like those of the first window."""
    per_step = float(settings.accumulate)
    if settings.targets_per_step is not None:
        mean = float(np.mean([len(batch.targets) for batch in batches]))
        per_step = max(1.0, math.ceil(settings.targets_per_step / max(mean, 1)))
    n_steps = max(1, math.ceil(len(batches) * times / per_step))
    return min(n_steps, settings.max_steps or n_steps)


def _still_to_come(settings: TrainSettings, subject: Subject, model: Any, base: str) -> int:
    """Bytes that training takes beyond the model: gradients, states and activations."""
    config = subject.config
    n_trainable = sum(int(p.numel()) for p in model.trainable.values())
    states = (4 + STATE_BYTES[settings.optimizer]) * n_trainable
    heads = (config.n_heads + 2 * config.n_kv_heads) * config.head_dim
    lean = int(is_lean(base) and is_fast(config))
    layer = (6 - 2 * lean) * config.hidden_size + 2 * heads + (4 - lean) * config.intermediate_size
    kept = config.n_layers * (config.hidden_size if settings.checkpointing else layer) + layer
    activations = settings.tokens_per_batch * kept * int(width(base).itemsize)
    # the gradient of a trained head is made in one piece and then handed on
    trains_head = any(is_lazy(name) for name in model.trainable)
    head = config.vocab_size * config.hidden_size * 4 if trains_head else 0
    return states + activations + head + LOGITS_BYTES


def _require_room(settings: TrainSettings, memory: int) -> None:
    available = available_bytes()
    if available is None or memory - used_bytes() < available:
        return
    raise ValueError(
        f"memory is short: training takes about {megabytes(memory)} in all, "
        f"{megabytes(available)} are free; raise accumulate (now {settings.accumulate}: smaller "
        "batches), choose base q4 or optimizer adamw8bit, or turn checkpointing on"
    )
