"""The level "auto": exact where that was seen to be faster, off elsewhere.

Both give the same text, so that nobody has to choose; but a screen needs a calibration, and pays
only where the head is a good part of a token's bytes. Both are found out in parts of some tenths of
a second, so that a conversation can go on between them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import TYPE_CHECKING

from engine.generate import stream
from engine.lookup import CallTimes
from engine.sampling import SamplingParams
from engine.sparsity import calibration, texts
from engine.sparsity.calibration import Collection
from engine.sparsity.knob import Level
from engine.sparsity.levels import apply
from engine.sparsity.trials import faster_level, keep_gain

if TYPE_CHECKING:
    from engine.cache import KVCache
    from engine.model import Model

LEVELS: tuple[Level, Level] = ("off", "exact")
PARAMS = SamplingParams(temperature=0.6, top_k=40, max_tokens=48, seed=1)  # of a chat


class Trial:
    """Calibrates a model where that is missing, then times `exact` beside `off`."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._cache = model.decoder.new_cache()
        self._steps = self._all_steps()

    def step(self) -> float:
        """The next part; the share that is done, 1 = all of it is, and kept.

        The model's conversation, level and adapter are left as they are.
        """
        with _aside(self._model, self._cache):
            return next(self._steps, 1.0)

    def _all_steps(self) -> Iterator[float]:
        model = self._model
        if model.packed_file is None:
            return  # nothing can be kept
        if calibration.stored(model) is None:
            collection = Collection(model)
            while (done := collection.step()) < 1:
                yield 0.8 * done
            collection.finish()
        if faster_level(model) is None and calibration.stored(model) is not None:
            gains = []
            prompts = list(texts.prompts(model, texts.HELD_OUT, seed=2))
            for i, prompt in enumerate(prompts):
                yield 0.8 + 0.2 * i / len(prompts)
                seconds = {level: _seconds(model, level, prompt) for level in LEVELS}
                gains.append(seconds["off"] / seconds["exact"])
            keep_gain(model, median(gains))


def _seconds(model: Model, level: Level, prompt: list[int]) -> float:
    """Of decoding one answer, the same at either level."""
    model.set_sparsity(level)
    model.cache.truncate(0)
    generation = stream(model, prompt, PARAMS)
    for _ in generation:
        pass
    return generation.usage.decode_s


@contextmanager
def _aside(model: Model, cache: KVCache) -> Iterator[None]:
    """The model with another cache, dense at first; afterwards as it was."""
    before = model.cache, model.sparsity, model.call_times
    model.cache, model.call_times = cache, CallTimes()
    try:
        model.set_sparsity("off")
        yield
    finally:
        apply(model, before[1])
        model.cache, _, model.call_times = before
