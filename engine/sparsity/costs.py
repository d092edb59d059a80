"""What skipping saves on this machine: whole tokens are timed, as memory is what a layer waits for.

A kernel timed alone finds its weights in a cache, or finds the memory idle; inside a token it does
not. So tokens are decoded with nothing active and with half of it in some of the layers, and the
time of a layer is taken to be a line between: so much for the path itself, so much for each active
row and input.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from engine.config import DecoderConfig
from engine.kernels.sparse import BY_INPUTS, BY_ROWS
from engine.kernels.tables import DOWN_SITE, N_SITES, O_SITE, QKV_SITE, UP_SITE
from engine.sparse_formats import Copy, Sparse
from engine.sparsity.losses import START, Texts

if TYPE_CHECKING:
    from engine.cache import KVCache
    from engine.decoder import Decoder

Floats = NDArray[np.float32]
Progress = Callable[[str, float], None]  # stage, fraction done in [0, 1]
Line = tuple[float, float]  # seconds saved when nothing is active, and lost again when all is
NEVER: Line = (-1.0, 0.0)  # of what cannot be read in part
_NOTHING, _ALL = np.float32(np.inf), np.float32(-1)  # thresholds
_LAYERS = 8  # that are timed: copies of all would double the memory of the model
TIMED = 32  # tokens of a piece
_CHANCE = 0.25  # what is saved in three rounds of four counts: chance must not take a path


class Costs(NamedTuple):
    """Seconds a layer and token against dense.

    by_inputs  a feed-forward of which inputs of `down` are left out
    by_rows    … and rows of `up`; what is lost is for rows alone
    qkv, o     inputs of q, k and v; of o
    token_s    seconds of a dense token
    """

    by_inputs: Line
    by_rows: Line
    qkv: Line
    o: Line
    token_s: float

    def saved(self, path: int, rows: ArrayLike, inputs: ArrayLike) -> NDArray[np.float64]:
        """By a path of a feed-forward at these shares of active rows and inputs."""
        most, a_row = self.by_rows if path == BY_ROWS else (self.by_inputs[0], 0.0)
        return np.asarray(most - a_row * np.asarray(rows) - self.by_inputs[1] * np.asarray(inputs))

    def saved_at(self, site: int, active: ArrayLike) -> NDArray[np.float64]:
        """By q, k and v, or o, at this share of active inputs."""
        most, slope = self.qkv if site == QKV_SITE else self.o
        return np.asarray(most - slope * np.asarray(active))

    def break_even(self, site: int) -> float:
        """The share of active inputs below which skipping saves time, at most 1; 0 = never.

        Of a feed-forward by the better path, as many rows active as inputs.
        """
        lines = {QKV_SITE: [self.qkv], O_SITE: [self.o]}.get(site)
        if lines is None:
            lines = [self.by_inputs, (self.by_rows[0], self.by_rows[1] + self.by_inputs[1])]
        return max(min(1.0, max(most, 0.0) / max(slope, 1e-12)) for most, slope in lines)


def timed_layers(config: DecoderConfig) -> list[int]:
    """Layers from all over."""
    n = min(_LAYERS, config.n_layers)
    return [int(layer) for layer in np.unique(np.linspace(0, config.n_layers - 1, n).astype(int))]


def measure(
    decoder: Decoder, copies: Mapping[str, Copy], sizes: Sequence[tuple[float, ...]],
    n_tokens: int = 8, rounds: int = 5, on_progress: Progress | None = None,
) -> Costs:  # fmt: skip
    """Costs of this decoder with its threads; what it uses otherwise is left as it was.

    copies  of timed_layers; sites without one are taken to be never faster
    sizes   of each layer and site: what about half of the values are above
    """
    layers = timed_layers(decoder.config)
    names = ["dense", *_settings(decoder.config, copies, layers)]
    before, random = decoder.sparse, np.random.default_rng(0)
    ids = random.integers(0, decoder.config.vocab_size, n_tokens + 1).tolist()
    timings = {name: _Timing() for name in names}
    try:
        for done in range(rounds):
            if on_progress:
                on_progress("what skipping saves", done / rounds)
            for name in names:
                decoder.use_thresholds(_setting(name, sizes, copies, layers))
                timings[name].add(decoder, ids, layers)
    finally:
        decoder.use_thresholds(before)
    return _fitted(timings, len(layers))


def gain(decoder: Decoder, sparse: Sparse, pieces: Texts, rounds: int = 12) -> float:
    """The share of a dense token's time that `sparse` saves on texts, in three rounds of four.

    Both read the same tokens of a piece, in turns; below 0, it loses time.
    """
    before, shares = decoder.sparse, []
    try:
        for number in range(rounds):
            piece = pieces[number % len(pieces)]
            ways = (None, sparse) if number % 2 else (sparse, None)
            seconds = {way is None: _seconds_of_piece(decoder, way, piece) for way in ways}
            shares.append(1 - seconds[False] / seconds[True])
    finally:
        decoder.use_thresholds(before)
    return float(np.quantile(shares, _CHANCE))


def _seconds_of_piece(decoder: Decoder, way: Sparse | None, piece: Sequence[int]) -> float:
    """Of a token, the median over some behind START."""
    cache = decoder.new_cache()
    decoder.use_thresholds(way)
    decoder.extend(cache, piece[:START])
    return _median_seconds(decoder, cache, piece[START : START + TIMED])


def _median_seconds(decoder: Decoder, cache: KVCache, ids: Sequence[int]) -> float:
    """Of tokens that are decoded one by one."""
    seconds = []
    for token_id in ids:
        started = time.perf_counter()
        decoder.extend(cache, [token_id])
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds))


_PATHS = {"inputs": BY_INPUTS, "rows": BY_ROWS}
_SITES = {"inputs": DOWN_SITE, "rows": UP_SITE, "qkv": QKV_SITE, "o": O_SITE}
_NEEDED = {"inputs": "down_inputs", "rows": "up_rows", "qkv": "wq_inputs", "o": "wo_inputs"}


def _settings(
    config: DecoderConfig, copies: Mapping[str, Copy], layers: Sequence[int]
) -> Iterator[str]:
    for name, kind in _NEEDED.items():
        if all(f"layers.{layer}.{kind}" in copies for layer in layers):
            yield f"{name}, none"
            yield f"{name}, half"


def _setting(
    name: str,
    sizes: Sequence[tuple[float, ...]],
    copies: Mapping[str, Copy],
    layers: Sequence[int],
) -> Sparse | None:
    if name == "dense":
        return None
    kind, active = name.split(", ")
    site, n = _SITES[kind], len(sizes)
    values = np.full((n, N_SITES), _ALL)
    values[:, site] = _NOTHING if active == "none" else [size[site] for size in sizes]
    paths, projections = np.zeros(n, np.int64), np.zeros((n, 2), np.int64)
    if kind in _PATHS:
        paths[layers] = _PATHS[kind]
    else:
        projections[layers, site - QKV_SITE] = 1
    return Sparse(values, paths, projections, copies)


class _Timing:
    """Tokens of one setting."""

    def __init__(self) -> None:
        self.seconds: list[float] = []  # the median of each round
        self.active = np.zeros(N_SITES)  # shares of what the timed layers have

    def add(self, decoder: Decoder, ids: Sequence[int], layers: Sequence[int]) -> None:
        cache = decoder.new_cache()
        decoder.extend(cache, ids[:1])
        self.seconds.append(_median_seconds(decoder, cache, ids[1:]))
        self.active = decoder.n_active[layers].sum(axis=0) / (
            len(ids) * len(layers) * site_widths(decoder.config)
        )


def site_widths(config: DecoderConfig) -> NDArray[np.int64]:
    """How many rows or inputs each site has."""
    heads = config.n_heads * config.head_dim
    inner = config.intermediate_size
    return np.array([inner, inner, config.hidden_size, heads])


def _fitted(timings: Mapping[str, _Timing], n_layers: int) -> Costs:
    def saved(name: str, quantile: float = 0.5) -> float:
        # round by round: what else the machine does changes by the minute
        both = zip(timings["dense"].seconds, timings[name].seconds, strict=True)
        return float(np.quantile([dense - ours for dense, ours in both], quantile)) / n_layers

    def slope(kind: str) -> float:
        lost = saved(f"{kind}, none") - saved(f"{kind}, half")
        active = float(timings[f"{kind}, half"].active[_SITES[kind]])
        return max(lost, 0.0) / max(active, 0.05)

    def line(kind: str) -> Line:
        if f"{kind}, none" not in timings:
            return NEVER
        return saved(f"{kind}, none", _CHANCE), slope(kind)

    by_inputs, by_rows = line("inputs"), line("rows")
    # where rows are skipped, the same share of inputs is
    rows_alone = by_rows[0], max(by_rows[1] - by_inputs[1], 0.0)
    token_s = float(np.median(timings["dense"].seconds))
    return Costs(by_inputs, rows_alone, line("qkv"), line("o"), token_s)
