"""Some steps of a run that leave nothing behind: what the run will take."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import islice

import torch

from engine.cores import default_threads
from engine.memory import peak_bytes
from engine.training.aims import Plain
from engine.training.optimizers import optimizer
from engine.training.probe import probe
from engine.training.rehearsal_result import Rehearsal
from engine.training.settings import TrainSettings
from engine.training.subject import open_subject
from engine.training.updates import apply, gradients

N_STEPS = 3


def rehearse(
    settings: TrainSettings, on_step: Callable[[int, int], None] = lambda done, total: None
) -> Rehearsal:
    """What `train(settings)` would begin with. ValueError and OSError in one line, as there.

    on_step  hears the steps that were made, and how many there will be
    """
    threads, n_before = settings.threads or default_threads(), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng(devices=[]):
            return _rehearsed(settings, threads, on_step)
    finally:
        torch.set_num_threads(n_before)


def _rehearsed(
    settings: TrainSettings, threads: int, on_step: Callable[[int, int], None]
) -> Rehearsal:
    subject = open_subject(settings, lambda text: None)
    found = probe(settings, subject, Plain())
    torch.manual_seed(settings.seed)
    model = found.model
    made = optimizer(settings.optimizer, model.trainable, settings.weight_decay, threads)
    model.train(True)
    losses: list[float] = []
    seconds: list[float] = []
    n_tokens: list[int] = []
    n = min(N_STEPS, found.n_steps)
    batches = (fed.batch for fed in subject.feed.batches())
    for _ in range(n):
        held = list(islice(batches, settings.accumulate))
        if not held:
            break
        on_step(len(losses), n)
        began = time.perf_counter()
        sums = gradients(model, held)
        apply(model, made, sums, settings.peak_learning_rate * settings.warmup, settings.clip)
        seconds.append(time.perf_counter() - began)
        losses.append(sums.loss)
        n_tokens.append(sums.n_tokens)
    later = slice(1 if len(seconds) > 1 else 0, None)
    step_s = sum(seconds[later]) / len(seconds[later])
    return Rehearsal(
        base=found.base,
        cosine=found.cosine,
        n_trainable=sum(int(p.numel()) for p in model.trainable.values()),
        n_weights=found.n_weights,
        n_steps=found.n_steps,
        tokens_per_s=sum(n_tokens[later]) / sum(seconds[later]),
        step_s=step_s,
        seconds=step_s * found.n_steps,
        memory_bytes=peak_bytes(),
        losses=losses,
        warnings=found.warnings,
    )
