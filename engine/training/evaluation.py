"""How good the model is now: held-out rows, teacher-forced, and its answers to fixed prompts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from engine.training.examples import Example
from engine.training.packing import Batch, batch_of
from engine.training.updates import Model

Answer = Callable[[Sequence[Sequence[int]]], list[list[int]]]  # prompts -> new ids of each


class Scores(NamedTuple):
    """Over the labels of held-out rows: nats a token, exp of that, share of likeliest tokens."""

    loss: float
    perplexity: float
    accuracy: float
    n_targets: int


def evaluate(
    model: Model, batches: Iterable[Batch], should_stop: Callable[[], bool] = lambda: False
) -> Scores | None:
    """Without dropout and without gradients; the model trains on after it. None when stopped."""
    total, n, correct = 0.0, 0, 0
    model.train(False)
    with torch.no_grad():
        for batch in batches:
            if should_stop():
                model.train(True)
                return None
            loss = model(batch)
            total, n, correct = total + float(loss.total), n + loss.n, correct + loss.correct
    model.train(True)
    loss_mean = total / max(n, 1)
    # exp of more is no number that a table could show
    perplexity = math.exp(loss_mean) if loss_mean < 100 else math.inf
    return Scores(loss_mean, perplexity, correct / max(n, 1), n)


def prompt_of(example: Example) -> list[int]:
    """What stands before the example's last answer, [] when it has none."""
    trained = example.trained
    if not any(trained) or not trained[-1]:
        return []
    start = len(trained)
    while start and trained[start - 1]:
        start -= 1
    return example.token_ids[:start] if start > 1 else []


def greedy(
    model: Model,
    prompts: Sequence[Sequence[int]],
    stop_ids: frozenset[int],
    n_tokens: int,
) -> list[list[int]]:
    """The new ids after each prompt, the likeliest one each time, without the stop token.

    All prompts are one packed batch, and every token costs a pass over all of it: for a model that
    is being changed as a whole, whose weights no decoder holds.
    """
    texts: list[list[int]] = [list(prompt) for prompt in prompts]
    is_open = [True] * len(texts)
    model.train(False)
    for _ in range(n_tokens):
        going = [i for i, still in enumerate(is_open) if still]
        if not going:
            break
        batch = batch_of([Example(texts[i], [False] * len(texts[i]), "", 0) for i in going])
        last = np.cumsum(batch.lengths) - 1
        for i, row in zip(going, _rows(model, batch, last), strict=True):
            token_id = int(row.argmax())
            is_open[i] = token_id not in stop_ids
            if is_open[i]:
                texts[i].append(token_id)
    model.train(True)
    return [text[len(prompt) :] for text, prompt in zip(texts, prompts, strict=True)]


def _rows(model: Model, batch: Batch, last: Any) -> Any:
    with torch.no_grad():
        return model.logits(batch)[torch.from_numpy(last)]
