"""What is measured once for a checkpoint, and kept beside its packed weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from loguru import logger
from numpy.typing import NDArray

from engine import packed
from engine.formats import Weight
from engine.kernels.layout import blocks, groups
from engine.screen import Screen
from engine.sparsity import head, layer_calibration, texts

if TYPE_CHECKING:
    from engine.model import Model

Floats = NDArray[np.float32]
Progress = Callable[[str, float], None]  # stage, fraction done in [0, 1]

_VERSION = 1  # changes with the meaning of any entry
_NUMBERS = ("margin", "margins", "n_first")  # of a screen


class Calibration(NamedTuple):
    """Of one checkpoint in one packed form.

    screen  of the head, calibrated
    texts   token ids of what the model answered to engine/sparsity/texts.py, with the questions
    """

    screen: Screen
    texts: list[list[int]]


def calibrate(model: Model, on_progress: Progress | None = None) -> Calibration:
    """Measure, and keep it beside the packed weights where they are kept.

    Less than half a minute for a model of 135M weights. The conversation's cache is used and left
    empty. The layers come before the head, whose screen takes memory.
    """
    report = on_progress or (lambda stage, fraction: None)
    collection = Collection(model)
    report("the model's own answers", 0.0)
    while (done := collection.step()) < 1:
        report("the model's own answers", done)
    model.cache.truncate(0)
    layer_calibration.calibrate(model, collection.texts, report)
    report("the head", 0.0)
    return collection.finish()


class Collection:
    """A calibration of the head in parts: an answer of the model at each step, which uses
    model.cache."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._states = _States(model)
        self._answers = texts.answers(model, on_choice=self._states.add)
        self.texts: list[list[int]] = []

    @property
    def states(self) -> Floats:
        """What the head was multiplied with for each token of the answers and their ends so far:
        float32 (n, hidden_size)."""
        return self._states.rows[: self._states.n]

    def step(self) -> float:
        """One more answer; the share of them that is there."""
        answer = next(self._answers, None)
        if answer is None:
            return 1.0
        self.texts.append(answer[0])
        return len(self.texts) / len(texts.QUESTIONS)

    def finish(self) -> Calibration:
        """What follows from the answers, kept where that can be; about two seconds."""
        model = self._model
        matrices = model.weights.matrices
        screen = head.calibrated(matrices.get("head", matrices["embedding"]), self.states)
        found = Calibration(screen, self.texts)
        if model.packed_file is not None:
            try:
                packed.write(file_of(model.packed_file), _entries(found))
            except OSError as error:
                logger.warning("cannot keep the calibration: {}", error)
        return found


class _States:
    """What the head is multiplied with, token by token, in an array that does not move."""

    def __init__(self, model: Model) -> None:
        most = len(texts.QUESTIONS) * (texts.ANSWER_TOKENS + 1)
        self.rows = np.empty((most, model.config.hidden_size), np.float32)
        self.n = 0
        self._decoder = model.decoder

    def add(self) -> None:
        self.rows[self.n] = self._decoder.states(1)[0]
        self.n += 1


def file_of(packed_file: Path) -> Path:
    """Where the calibration of these packed weights is kept."""
    return packed_file.with_suffix(f".calibration{_VERSION}")


def stored(model: Model) -> Calibration | None:
    """What was kept; None when there is nothing, or nothing that can be read."""
    path = model.packed_file and file_of(model.packed_file)
    if not path or not path.exists():
        return None
    try:
        return _from_arrays(packed.open_packed(path))
    except (KeyError, ValueError, TypeError) as error:
        logger.warning("{}: {}; calibrate again", path.name, error)
        return None


def _entries(found: Calibration) -> list[packed.Entry]:
    screen = found.screen
    numbers = {name: getattr(screen, name) for name in _NUMBERS}
    lengths = [len(text) for text in found.texts]
    ids = np.array([token_id for text in found.texts for token_id in text], np.int32)
    entries = [
        _entry("bounds", screen.bounds, **numbers),
        _entry("texts", ids, lengths=lengths),
    ]
    for name in ("scores", "rest", "basis"):
        if (weight := getattr(screen, name)) is not None:
            shape = {"format": weight.format, "n_out": weight.n_out, "n_in": weight.n_in}
            entries.append(_entry(name, weight.data, **shape))
    return entries


def _entry(name: str, array: NDArray[Any], **attributes: Any) -> packed.Entry:
    data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return packed.Entry(name, data.nbytes, attributes, partial(list, [data]))


def _from_arrays(arrays: dict[str, tuple[NDArray[np.uint8], dict[str, Any]]]) -> Calibration:
    weights = {
        name: Weight(
            attributes["format"],
            data.reshape(groups(attributes["n_out"]), blocks(attributes["n_in"]), -1),
            attributes["n_out"],
            attributes["n_in"],
        )
        for name, (data, attributes) in arrays.items()
        if "format" in attributes
    }
    bounds, numbers = arrays["bounds"]
    screen = Screen(
        weights["scores"],
        weights.get("rest"),
        weights["basis"],
        bounds.view(np.float32),
        **{name: numbers[name] for name in _NUMBERS},
    )
    ids, shape = arrays["texts"]
    texts_read = np.split(ids.view(np.int32), np.cumsum(shape["lengths"])[:-1])
    return Calibration(screen, [text.tolist() for text in texts_read])
