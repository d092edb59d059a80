"""What cannot be skipped in a model of this kind, whatever the level: a line for each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.config import DecoderConfig

BIASED_HEAD = "the head has a bias, which screens leave out: it is computed whole"
ALIBI = "ALiBi gives positions: keys and values are read whole"
WINDOWS = "layers with a window read all of it"
NO_GATE = "no gate tells which rows of `up` matter: of feed-forwards, inputs of `down` are left out"


def limits(config: DecoderConfig) -> Iterator[str]:
    """In the order of a report: head, keys and values, layers."""
    if config.head_bias:
        yield BIASED_HEAD
    if config.position == "alibi":
        yield ALIBI
    elif config.sliding_window:
        yield WINDOWS
    if not config.gated:
        yield NO_GATE
