"""Screens of the vocabulary head: smaller matrices that tell which rows of it a token needs.

A token of a small model spends a third of its time on the head, to find a few words among tens of
thousands. A screen has a bound for each row of how far it may be off, and the decoder computes
exactly all that could be among the best (engine/kernels/head.py).

certified   the head in four bits. Its bounds hold for every hidden state: the screen's error is the
            product of the state with what the rounding took from the row, and by Cauchy and Schwarz
            no more than the product of their lengths. The best logits are those of the dense head.
calibrated  the head seen from the axes along which hidden states differ most (the principal axes of
            states of text): in four bits along the first ones, which hold most of a state, and in
            two along the others. Its bounds are the root mean square errors at such states, and
            its margin is so many of them: with MARGIN the best logit was never missed so far.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from engine.formats import Weight, weight_format
from engine.kernels.layout import COLUMNS, padded
from engine.screen import Screen
from engine.sparsity.level_cost import Part
from engine.sparsity.limits import BIASED_HEAD

if TYPE_CHECKING:
    from engine.model import Model

Floats = NDArray[np.float32]

CERTIFIED_FORMAT, FIRST_FORMAT, REST_FORMAT, BASIS_FORMAT = "q4", "q4_0", "q2", "q8"
# of a row's length: what the arithmetic of the two products may add to the difference between them.
# Activations are rounded to 1/64,516 of the largest of 32 (float weights take them unrounded), and
# sums of some hundred float32 are off by less than that again.
_ARITHMETIC = 2e-4
CERTIFIED_MARGIN = 1.0 + 1e-4  # bounds are computed from float32 themselves
MARGIN, MARGINS = 6.0, 2.0
FIRST_SHARE = 2 / 9  # of the axes
N_FIRST = 8
_SLAB = 16  # groups of rows that are worked on at a time; more need memory and are no faster
_STATES = 256  # the same of states


def certified(head: Weight) -> Screen:
    """The screen whose bounds hold for every state."""
    scores, bounds = _empty(CERTIFIED_FORMAT, head, head.n_in), []
    for at, rows in _slabs(head):
        scores.data[at] = quantized = weight_format(CERTIFIED_FORMAT).quantize(rows)
        error = weight_format(CERTIFIED_FORMAT).dequantize(quantized) - rows
        bounds.append(_lengths(error) + _ARITHMETIC * _lengths(rows))
    return Screen(scores, None, None, _joined(bounds), CERTIFIED_MARGIN, CERTIFIED_MARGIN)


def calibrated(head: Weight, states: Floats) -> Screen:
    """The screen for states like these: float32 (n, hidden_size), what the head is multiplied with
    after the last norm."""
    values, vectors = np.linalg.eigh(_second_moments(states))
    axes = _packed(np.ascontiguousarray(vectors[:, ::-1].T, np.float32), BASIS_FORMAT)
    turn = _values(axes)
    spread = np.sqrt(np.maximum(values[::-1], 1e-3 * values.mean()))  # of a state along the axes
    n_first_axes = min(head.n_in, 32 * max(1, round(FIRST_SHARE * head.n_in / 32)))
    scores, rest = _empty(FIRST_FORMAT, head, n_first_axes), None
    if n_first_axes < head.n_in:
        rest = _empty(REST_FORMAT, head, head.n_in - n_first_axes)
    bounds = []
    for at, rows in _slabs(head):
        turned = rows[:, : head.n_in] @ turn.T
        errors = []
        for weight, part in zip(
            (scores, rest), np.split(turned, [n_first_axes], axis=1), strict=True
        ):
            if weight is None:
                continue
            module = weight_format(weight.format)
            weight.data[at] = quantized = module.quantize(padded(part))
            errors.append(module.dequantize(quantized)[:, : part.shape[1]] - part)
        bounds.append(_lengths(np.concatenate(errors, axis=1) * spread))
    return Screen(scores, rest, axes, _joined(bounds), MARGIN, MARGINS, N_FIRST)


def _second_moments(states: Floats) -> NDArray[np.float64]:
    """Of states brought to length 1, (hidden_size, hidden_size)."""
    total = np.zeros((states.shape[1], states.shape[1]))
    for start in range(0, len(states), _STATES):
        part = states[start : start + _STATES]
        part = part / np.linalg.norm(part, axis=1, keepdims=True)
        total += part.T @ part
    return total / len(states)


def _joined(bounds: list[NDArray[np.float64]]) -> Floats:
    return np.concatenate(bounds).astype(np.float32)


def _slabs(head: Weight) -> Iterator[tuple[slice, Floats]]:
    """The head's rows as float32 (16 groups, padded n_in), some groups at a time."""
    for start in range(0, len(head.data), _SLAB):
        at = slice(start, start + _SLAB)
        yield at, weight_format(head.format).dequantize(head.data[at])


def _empty(name: str, head: Weight, n_in: int) -> Weight:
    """Room for as many rows as the head's of n_in numbers."""
    shape = len(head.data), -(-n_in // COLUMNS), weight_format(name).BLOCK_BYTES
    return Weight(name, np.empty(shape, np.uint8), head.n_out, n_in)


def _lengths(rows: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.asarray(np.sqrt(np.square(rows, dtype=np.float64).sum(axis=1)), np.float64)


def _packed(values: Floats, name: str) -> Weight:
    return Weight(name, weight_format(name).quantize(padded(values)), *values.shape)


def _values(weight: Weight) -> Floats:
    rows: Floats = weight_format(weight.format).dequantize(weight.data)
    return rows[: weight.n_out, : weight.n_in]


def n_bytes(screen: Screen) -> int:
    """What a token reads of it."""
    matrices = [screen.scores, screen.rest, screen.basis]
    return screen.bounds.nbytes + sum(m.data.nbytes for m in matrices if m is not None)


def describe(model: Model, n_best: int) -> list[Part]:
    """What the latest call, of one token and for n_best logits, read of the head."""
    matrices = model.weights.matrices
    n_head = matrices.get("head", matrices["embedding"]).data.nbytes
    screen, seen = model.sparsity.screen, model.decoder.screened(n_best)
    if screen is None or seen is None:
        why = BIASED_HEAD if model.config.head_bias else "computed whole"
        return [Part("head", n_head, n_head, 1.0, why)]
    share = _n_computed(seen, max(n_best, screen.n_first), n_best) / seen.shape[1]
    size = n_bytes(screen)
    detail = f"screen {size / 1e6:.1f} MB, margins {screen.margin:g} and {screen.margins:g}"
    return [Part("head", n_head, size + share * n_head, share, detail)]


def _n_computed(seen: Floats, n_first: int, n_best: int) -> int:
    """Groups that were computed; see engine/kernels/head.py."""
    upper, likely, exact = seen
    first = likely >= np.partition(likely, -n_first)[-n_first]
    least = np.partition(exact[first], -n_best)[-n_best]
    return int(np.count_nonzero(first | (upper >= least)))
