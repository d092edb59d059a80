"""What a level costs and saves, beside the dense model: measured, never assumed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from engine.cancel import Cancel
from engine.generate import prefill
from engine.sampling import SamplingParams, n_best_needed
from engine.sparsity import calibration, head, kept, kv, layers, levels, texts
from engine.sparsity.knob import Level
from engine.sparsity.level_cost import LevelCost, Part
from engine.sparsity.levels import Sparsity

if TYPE_CHECKING:
    from engine.model import Model

Floats = NDArray[np.float32]
Progress = Callable[[str, float], None]  # stage, fraction done in [0, 1]

MEASURED = ("balanced", "fast")
LEVEL_COSTS, METHOD_COSTS = "costs", "methods"  # kinds of what is kept
PARAMS = SamplingParams(temperature=0.6, top_k=40)  # of the measurement: what a chat has
# what one part of a token's work read in the latest call; each part has its own file
DESCRIPTIONS: tuple[Callable[[Model, int], list[Part]], ...] = (head.describe, kv.describe)

ANSWER_TOKENS = 48
_PIECE = 16  # tokens of an answer that are measured at a time
_COMPARED = 8  # tokens whose logits are kept before they are compared
_MOST_BYTES = 64 << 20  # of logits kept at a time, dense and sparse ones


def calibrate(model: Model, on_progress: Progress | None = None) -> dict[Level, LevelCost]:
    """Calibrate, then measure each calibrated level on answers kept apart; both are kept.

    The conversation's cache is used and left empty. What on_progress raises ends it, and leaves
    the model dense. An adapter in use takes no part in it: what is kept is the checkpoint's.
    """
    adapter = model.adapter
    model.set_sparsity("off")
    model.set_adapter(None)
    try:
        return _calibrated(model, on_progress or (lambda stage, fraction: None))
    finally:
        model.set_adapter(adapter)


def _calibrated(model: Model, report: Progress) -> dict[Level, LevelCost]:
    calibration.calibrate(model, report)
    answers: list[tuple[Sequence[int], int]] = []
    for i, answer in enumerate(texts.answers(model, texts.HELD_OUT, ANSWER_TOKENS, seed=2)):
        report("answers to measure on", i / len(texts.HELD_OUT))
        answers += _in_pieces(*answer)
    found: dict[Level, LevelCost] = {}
    for level in MEASURED:
        report(f"measuring {level}", 0.0)
        found[level] = measure(model, levels.sparsity_of(model, level), answers, on_progress=report)
    model.cache.truncate(0)
    kept.write(model, LEVEL_COSTS, list(found.values()))
    kept.remove(model, METHOD_COSTS)  # they are of another calibration
    return found


def _in_pieces(ids: Sequence[int], start: int) -> Iterator[tuple[Sequence[int], int]]:
    """An answer as several, each behind the ones before: logits are kept for a piece at a time."""
    for at in range(start, len(ids), _PIECE):
        yield ids[: at + _PIECE], at


def compare_with_dense(
    model: Model,
    prompt: Sequence[int],
    answer: Sequence[int],
    params: SamplingParams,
    *,
    cancel: Cancel | None = None,
    on_progress: Progress | None = None,
) -> LevelCost:
    """The level in use on an answer that was given, or on as much of it as there is room for.

    The conversation's cache holds the answer when this is over. Raises Cancelled.
    """
    most = max(1, _MOST_BYTES // (8 * model.config.vocab_size))
    ids = [*prompt, *answer[:most]]
    return measure(model, model.sparsity, [(ids, len(prompt))], params, cancel, on_progress)


def measure(
    model: Model,
    sparsity: Sparsity,
    answers: Iterable[tuple[Sequence[int], int]],
    params: SamplingParams = PARAMS,
    cancel: Cancel | None = None,
    on_progress: Progress | None = None,
) -> LevelCost:
    """Teacher-forced, one token at a time as in decoding: first dense, then with `sparsity`.

    answers  (token ids of prompt and answer, length of the prompt), at least one answer token
    """
    answers = list(answers)
    tally, n_best, before = _Tally(), n_best_needed(params), model.sparsity
    tick = _ticks(sparsity.level, 2 * sum(len(ids) - start for ids, start in answers), on_progress)
    try:
        for ids, start in answers:
            expected = []
            for logits, seconds in _steps(model, Sparsity(), ids, start, n_best, cancel):
                tally.dense_s.append(seconds)
                expected.append(logits.copy())
                tick()
            for logits, seconds in _steps(model, sparsity, ids, start, n_best, cancel):
                tally.look(model, n_best)
                tally.compare(expected.pop(0), logits, seconds, at_once=not expected)
                tick()
            tally.look_at_layers(model)
    finally:
        levels.apply(model, before)
    return tally.cost(model, sparsity)


def level_costs(model: Model) -> dict[Level, LevelCost]:
    """What `calibrate` measured of this model, by level; {} before."""
    return {cost.level: cost for cost in kept.read(model, LEVEL_COSTS)}


def _steps(
    model: Model,
    sparsity: Sparsity,
    ids: Sequence[int],
    start: int,
    n_best: int,
    cancel: Cancel | None,
) -> Iterator[tuple[Floats, float]]:
    """The logits (vocab_size,) that answer tokens were chosen by, and the seconds of each call."""
    levels.apply(model, Sparsity())  # a prompt is read whole, even if it is one token
    if start > 1:
        prefill(model, ids[: start - 1], cancel)
    model.cache.truncate(start - 1)
    levels.apply(model, sparsity)
    for token_id in ids[start - 1 : -1]:
        began = time.perf_counter()
        logits = model.decoder.extend(model.cache, [token_id], n_best=n_best, cancel=cancel)
        yield logits[0], time.perf_counter() - began


def _ticks(level: Level, total: int, on_progress: Progress | None) -> Callable[[], None]:
    """To be called after each of `total` tokens."""
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        if on_progress is not None:
            on_progress(f"measuring {level}", done / total)

    return tick


def _divergence(dense: Floats, found: Floats) -> float:
    """KL(dense || found) of the softmax of two rows of logits."""
    wide = [row.astype(np.float64) for row in (dense, found)]
    p, q = (row - row.max() - np.log(np.exp(row - row.max()).sum()) for row in wide)
    return max(0.0, float(np.exp(p) @ (p - q)))


def _dense_bytes(model: Model) -> float:
    """Of weights that a token reads; of an embedding beside a head, one row."""
    embedding = model.weights.matrices["embedding"].data.nbytes
    return model.n_bytes - (embedding if "head" in model.weights.matrices else 0)


class _Tally:
    """What was seen of each token."""

    def __init__(self) -> None:
        self.kl: list[float] = []
        self.same: list[bool] = []
        self.dense_s: list[float] = []
        self.level_s: list[float] = []
        self._parts: dict[str, list[Part]] = {}
        self._pairs: list[tuple[Floats, Floats]] = []
        self._n_active: NDArray[np.int64] | None = None

    def compare(self, expected: Floats, found: Floats, seconds: float, at_once: bool) -> None:
        """Some tokens at a time: threads fall asleep meanwhile, and caches lose the weights."""
        self.level_s.append(seconds)
        self._pairs.append((expected, found.copy()))
        if len(self._pairs) < _COMPARED and not at_once:
            return
        for dense, ours in self._pairs:
            self.kl.append(_divergence(dense, ours))
            self.same.append(bool(dense.argmax() == ours.argmax()))
        self._pairs = []

    def look(self, model: Model, n_best: int) -> None:
        """At what the latest call read."""
        for describe in DESCRIPTIONS:
            for part in describe(model, n_best):
                self._parts.setdefault(part.name, []).append(part)

    def look_at_layers(self, model: Model) -> None:
        """At what all tokens of an answer read."""
        n_active = model.decoder.n_active
        self._n_active = n_active if self._n_active is None else self._n_active + n_active

    def cost(self, model: Model, sparsity: Sparsity) -> LevelCost:
        """Of all tokens."""
        n, parts = len(self.kl), list(map(_mean, self._parts.values()))
        assert self._n_active is not None
        sites = layers.seen(model.decoder, sparsity.sites, self._n_active, n)
        parts += layers.parts_of(sites)
        besides = sum(part.dense_bytes for part in parts if not part.is_weights)
        return LevelCost(
            level=sparsity.level,
            n_tokens=n,
            kl=float(np.mean(self.kl)),
            kl_error=float(np.std(self.kl, ddof=1) / np.sqrt(n)) if n > 1 else 0.0,
            same=sum(self.same) / n,
            dense_s=float(np.median(self.dense_s)),
            level_s=float(np.median(self.level_s)),
            n_bytes=_dense_bytes(model) + besides,
            parts=tuple(parts),
            sites=sites,
        )


def _mean(found: list[Part]) -> Part:
    return found[-1]._replace(
        dense_bytes=float(np.mean([part.dense_bytes for part in found])),
        read_bytes=float(np.mean([part.read_bytes for part in found])),
        active=float(np.mean([part.active for part in found])),
    )
