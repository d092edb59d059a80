"""What came of it, measured on the written model by the engine itself, as it decodes in a chat.

Held-out answers are fed token by token behind their prompts, to the original and to the result,
with its thresholds and without; KL is from the original's distribution of each next word.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import engine
from engine.kernels.tables import DOWN_SITE, UP_SITE
from engine.sparse_formats import Sparse
from engine.sparsity.levels import sparse_of
from engine.training.evaluation import prompt_of
from engine.training.examples import Example
from engine.training.packing import Batch
from engine.training.sparsify.outcome import Report
from engine.training.sparsify.student import labels

TEXTS = 16  # that are compared, at most
ROUNDS = 5
DECODED = 64  # tokens of a round
Progress = Callable[[str, float], None]


def examples_of(batches: Sequence[Batch]) -> list[Example]:
    """The documents of batches that end in an answer, one by one, TEXTS of them."""
    found = []
    for batch in batches:
        trained, start = labels(batch).tolist(), 0
        for length in batch.lengths:
            ids = batch.token_ids[start : start + length].tolist()
            made = Example(ids, trained[start : start + length], "", 0)
            start += length
            if prompt_of(made):
                found.append(made)
    return found[:TEXTS]


def report(
    original: Path,
    result: Path,
    examples: Sequence[Example],
    threads: int | None = None,
    on_progress: Progress = lambda stage, done: None,
) -> Report:
    """ValueError when the result carries no thresholds, or there are no examples."""
    if not examples:
        raise ValueError("there are no held-out answers to measure; raise val_share")
    on_progress("loading", 0.0)
    before, after = engine.load(original, threads=threads), engine.load(result, threads=threads)
    try:
        sparse = _sparse(after)
        on, off, same, n = 0.0, 0.0, 0, 0
        n_active = np.zeros((after.config.n_layers, 2))
        for number, example in enumerate(examples):
            on_progress("comparing", number / len(examples))
            wanted, logs = _decoded(before, example), _decoded(after, example)
            after.decoder.use_thresholds(sparse)
            sparse_logs = _decoded(after, example)
            n_active += after.decoder.n_active[:, [DOWN_SITE, UP_SITE]]
            after.decoder.use_thresholds(None)
            on, off = on + _kl(wanted, sparse_logs), off + _kl(wanted, logs)
            same += int((wanted.argmax(1) == sparse_logs.argmax(1)).sum())
            n += len(wanted)
        n_read = sum(len(e.token_ids) - answer_start(e) - 1 for e in examples)
        shares = np.round(n_active / (n_read * after.config.intermediate_size), 4)
        on_progress("timing", 1.0)
        speeds = _speeds(before, after, sparse, examples[0])
    finally:
        before.close()
        after.close()
    return Report(
        n, math.expm1(on / n), math.expm1(off / n), same / n,
        shares[:, 0].tolist(), shares[:, 1].tolist(), *speeds,
    )  # fmt: skip


def _sparse(model: engine.Model) -> Sparse:
    if model.trained is None:
        raise ValueError(f"{model.path} carries no thresholds that it was trained for")
    found = sparse_of(model, model.trained.thresholds(model.decoder))
    assert found is not None
    return found


def _decoded(model: engine.Model, example: Example) -> NDArray[np.float32]:
    """Log-probabilities before each token of the answer, (n, vocab_size): the prompt at once, then
    token by token."""
    start, cache = answer_start(example), model.decoder.new_cache()
    rows = [model.decoder.extend(cache, example.token_ids[:start])[-1].copy()]
    for token_id in example.token_ids[start:-1]:
        rows.append(model.decoder.extend(cache, [token_id])[-1].copy())
    logits = np.stack(rows)
    logits -= logits.max(axis=1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return logits


def answer_start(example: Example) -> int:
    """Where its last answer begins: all before it is a prompt, which is read densely."""
    return len(prompt_of(example))


def _kl(wanted: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    """Sum over rows."""
    return max(0.0, float((np.exp(wanted) * (wanted - found)).sum(dtype=np.float64)))


def _speeds(
    before: engine.Model, after: engine.Model, sparse: Sparse, example: Example
) -> tuple[float, float, float]:
    """Tokens a second of the original, of the result dense and with thresholds, in turn."""
    found: list[list[float]] = [[], [], []]
    for _ in range(ROUNDS):
        for kind, model in enumerate((before, after, after)):
            model.decoder.use_thresholds(sparse if kind == 2 else None)
            found[kind].append(_tokens_per_s(model, example))
    original, dense, with_thresholds = (statistics.median(each) for each in found)
    return original, dense, with_thresholds


def _tokens_per_s(model: engine.Model, example: Example) -> float:
    ids = example.token_ids
    cache = model.decoder.new_cache()
    model.decoder.extend(cache, ids[: answer_start(example)])
    seconds = []
    for token_id in _repeated(ids[answer_start(example) :], DECODED):
        began = time.perf_counter()
        model.decoder.extend(cache, [token_id])
        seconds.append(time.perf_counter() - began)
    return 1 / statistics.median(seconds)


def _repeated(ids: Sequence[int], n: int) -> Iterator[int]:
    for at in range(n):
        yield ids[at % len(ids)]
