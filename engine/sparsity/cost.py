"""What a level costs and saves, beside the dense model: measured, never assumed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from loguru import logger
from numpy.typing import NDArray

from engine import packed
from engine.cancel import Cancel
from engine.generate import prefill
from engine.sampling import SamplingParams, n_best_needed
from engine.sparsity import calibration, head, levels, texts
from engine.sparsity.knob import Level
from engine.sparsity.level_cost import LevelCost, Part
from engine.sparsity.levels import Sparsity

if TYPE_CHECKING:
    from engine.model import Model

Floats = NDArray[np.float32]
Progress = Callable[[str, float], None]  # stage, fraction done in [0, 1]

MEASURED = ("balanced", "fast")
PARAMS = SamplingParams(temperature=0.6, top_k=40)  # of the measurement: what a chat has
# what one part of a token's work read in the latest call; each part has its own file
DESCRIPTIONS: tuple[Callable[[Model, int], list[Part]], ...] = (head.describe,)

ANSWER_TOKENS = 48
_VERSION = 1
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
    answers = []
    for i, answer in enumerate(texts.answers(model, texts.HELD_OUT, ANSWER_TOKENS, seed=2)):
        report("answers to measure on", i / len(texts.HELD_OUT))
        answers.append(answer)
    found: dict[Level, LevelCost] = {}
    for level in MEASURED:
        report(f"measuring {level}", 0.0)
        found[level] = measure(model, levels.sparsity_of(model, level), answers, on_progress=report)
    model.cache.truncate(0)
    _keep(model, found)
    return found


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
            expected, found = [], []
            for logits, seconds in _steps(model, Sparsity(), ids, start, n_best, cancel):
                tally.dense_s.append(seconds)
                expected.append(logits.copy())
                tick()
            for logits, seconds in _steps(model, sparsity, ids, start, n_best, cancel):
                tally.level_s.append(seconds)
                found.append(logits.copy())
                tally.look(model, n_best)
                tick()
            tally.compare(expected, found)
    finally:
        levels.apply(model, before)
    return tally.cost(sparsity.level, _dense_bytes(model))


def level_costs(model: Model) -> dict[Level, LevelCost]:
    """What `calibrate` measured of this model, by level; {} before."""
    if model.packed_file is None:
        return {}
    path = _file_of(model.packed_file)
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
        costs = [
            LevelCost._make([*numbers, tuple(Part(*part) for part in parts)])
            for *numbers, parts in records
        ]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError) as error:
        logger.warning("{}: {}; calibrate again", path.name, error)
        return {}
    return {cost.level: cost for cost in costs}


def _steps(
    model: Model,
    sparsity: Sparsity,
    ids: Sequence[int],
    start: int,
    n_best: int,
    cancel: Cancel | None,
) -> Iterator[tuple[Floats, float]]:
    """The logits (vocab_size,) that answer tokens were chosen by, and the seconds of each call."""
    levels.apply(model, sparsity)
    if start > 1:
        prefill(model, ids[: start - 1], cancel)
    model.cache.truncate(start - 1)
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

    def compare(self, dense: list[Floats], found: list[Floats]) -> None:
        """Afterwards: between two tokens, threads would fall asleep and caches lose the weights."""
        for expected, logits in zip(dense, found, strict=True):
            self.kl.append(_divergence(expected, logits))
            self.same.append(bool(expected.argmax() == logits.argmax()))

    def look(self, model: Model, n_best: int) -> None:
        """At what the latest call read."""
        for describe in DESCRIPTIONS:
            for part in describe(model, n_best):
                self._parts.setdefault(part.name, []).append(part)

    def cost(self, level: Level, n_bytes: float) -> LevelCost:
        """Of all tokens; n_bytes: of the weights that each reads."""
        n, parts = len(self.kl), tuple(map(_mean, self._parts.values()))
        besides = sum(part.dense_bytes for part in parts if not part.is_weights)
        return LevelCost(
            level=level,
            n_tokens=n,
            kl=float(np.mean(self.kl)),
            kl_error=float(np.std(self.kl, ddof=1) / np.sqrt(n)) if n > 1 else 0.0,
            same=sum(self.same) / n,
            dense_s=float(np.median(self.dense_s)),
            level_s=float(np.median(self.level_s)),
            n_bytes=n_bytes + besides,
            parts=parts,
        )


def _mean(found: list[Part]) -> Part:
    return found[-1]._replace(
        dense_bytes=float(np.mean([part.dense_bytes for part in found])),
        read_bytes=float(np.mean([part.read_bytes for part in found])),
        active=float(np.mean([part.active for part in found])),
    )


def _file_of(packed_file: Path) -> Path:
    return packed_file.with_suffix(f".costs{_VERSION}.json")


def _keep(model: Model, found: dict[Level, LevelCost]) -> None:
    if model.packed_file is None:
        return
    try:
        with packed.replacing(_file_of(model.packed_file), True) as file:
            file.write(json.dumps(list(found.values())).encode())
    except OSError as error:
        logger.warning("cannot keep what the levels cost: {}", error)
