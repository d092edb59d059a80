"""What skipping saves on this machine: whole tokens are timed, as memory is what a layer waits for.

A kernel timed alone finds its weights in a cache, or finds the memory idle; inside a token it does
not. So tokens are decoded with nothing active and with half of it, and the time of a layer is taken
to be a line between: so much for the path itself, so much for each active row and input.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from engine.kernels.sparse import BY_INPUTS, BY_ROWS
from engine.sparse_formats import Copy, Sparse

if TYPE_CHECKING:
    from engine.decoder import Decoder

Floats = NDArray[np.float32]
_NOTHING, _ALL = np.float32(np.inf), np.float32(-1)  # thresholds


class Costs(NamedTuple):
    """Seconds a layer and token, against the dense feed-forward, when nothing or all is active.

    by_inputs  saved when nothing is active, and lost again when all inputs are
    by_rows    the same, and lost again when all rows are; -inf where there are no rows to skip
    """

    by_inputs: tuple[float, float]
    by_rows: tuple[float, float]

    def saved(self, path: int, rows: ArrayLike, inputs: ArrayLike) -> NDArray[np.float64]:
        """By a path at these shares of active rows and inputs."""
        most, a_row = self.by_rows if path == BY_ROWS else (self.by_inputs[0], 0.0)
        return np.asarray(most - a_row * np.asarray(rows) - self.by_inputs[1] * np.asarray(inputs))


def measure(
    decoder: Decoder, copies: Mapping[str, Copy], sizes: Sequence[tuple[float, float]],
    n_tokens: int = 8, rounds: int = 5,
) -> Costs:  # fmt: skip
    """Costs of this decoder with its threads; what it uses otherwise is left as it was.

    sizes  of each layer: a size that about half of the gate's activations are above, and the
           products
    """
    found = {name: _Timing() for name in ("dense", *_SETTINGS)}
    before = decoder.sparse
    rng = np.random.default_rng(0)
    ids = rng.integers(0, decoder.config.vocab_size, n_tokens + 1).tolist()
    names = [name for name in found if decoder.config.gated or not name.startswith("rows")]
    try:
        for _ in range(rounds):
            for name in names:
                decoder.use_thresholds(_setting(name, sizes, copies))
                found[name].add(decoder, ids)
    finally:
        decoder.use_thresholds(before)
    return _fitted({name: found[name] for name in names}, decoder.config.n_layers)


_SETTINGS = ("inputs, none", "inputs, half", "rows, none", "rows, half")


def _setting(
    name: str, sizes: Sequence[tuple[float, float]], copies: Mapping[str, Copy]
) -> Sparse | None:
    if name == "dense":
        return None
    by_rows = name.startswith("rows")
    site = 0 if by_rows else 1
    values = np.full((len(sizes), 2), _ALL)
    values[:, site] = _NOTHING if name.endswith("none") else [size[site] for size in sizes]
    paths = np.full(len(sizes), BY_ROWS if by_rows else BY_INPUTS, np.int64)
    return Sparse(values, paths, copies)


class _Timing:
    """Tokens of one setting."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.active = np.zeros(2)  # shares

    def add(self, decoder: Decoder, ids: Sequence[int]) -> None:
        cache = decoder.new_cache()
        decoder.extend(cache, ids[:1])
        for token_id in ids[1:]:
            started = time.perf_counter()
            decoder.extend(cache, [token_id])
            self.seconds.append(time.perf_counter() - started)
        possible = len(ids) * decoder.config.n_layers * decoder.config.intermediate_size
        self.active = decoder.n_active.sum(axis=0) / possible

    @property
    def median(self) -> float:
        return float(np.median(self.seconds))


def _fitted(timings: Mapping[str, _Timing], n_layers: int) -> Costs:
    def saved(name: str) -> float:
        return (timings["dense"].median - timings[name].median) / n_layers

    def slope(path: str, site: int) -> float:
        half = timings[f"{path}, half"]
        lost = saved(f"{path}, none") - saved(f"{path}, half")
        return max(lost, 0.0) / max(float(half.active[site]), 0.05)

    an_input = slope("inputs", 1)
    if "rows, none" not in timings:
        return Costs((saved("inputs, none"), an_input), (-np.inf, 0.0))
    # where rows are skipped, the same share of inputs is
    a_row = max(slope("rows", 0) - an_input, 0.0)
    return Costs((saved("inputs, none"), an_input), (saved("rows, none"), a_row))
