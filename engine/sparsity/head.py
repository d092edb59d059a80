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
from engine.kernels.layout import padded
from engine.screen import Screen
from engine.sparsity.level_cost import Part

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
_SLAB = 64  # groups of rows that are worked on at a time


def certified(head: Weight) -> Screen:
    """The screen whose bounds hold for every state."""
    parts, bounds = [], []
    for rows in _slabs(head):
        quantized = weight_format(CERTIFIED_FORMAT).quantize(rows)
        error = weight_format(CERTIFIED_FORMAT).dequantize(quantized) - rows
        parts.append(quantized)
        bounds.append(_lengths(error) + _ARITHMETIC * _lengths(rows))
    scores = Weight(CERTIFIED_FORMAT, np.concatenate(parts), head.n_out, head.n_in)
    return Screen(scores, None, None, _joined(bounds), CERTIFIED_MARGIN, CERTIFIED_MARGIN)


def calibrated(head: Weight, states: Floats) -> Screen:
    """The screen for states like these: float32 (n, hidden_size), what the head is multiplied with
    after the last norm."""
    states = states / np.linalg.norm(states, axis=1, keepdims=True)
    values, vectors = np.linalg.eigh((states.T @ states / len(states)).astype(np.float64))
    axes = _packed(np.ascontiguousarray(vectors[:, ::-1].T, np.float32), BASIS_FORMAT)
    turn = _values(axes)
    spread = np.sqrt(np.maximum(values[::-1], 1e-3 * values.mean()))  # of a state along the axes
    n_first_axes = min(head.n_in, 32 * max(1, round(FIRST_SHARE * head.n_in / 32)))
    formats = [weight_format(FIRST_FORMAT), weight_format(REST_FORMAT)]
    packed: list[list[NDArray[np.uint8]]] = [[], []]
    bounds = []
    for rows in _slabs(head):
        turned = rows[:, : head.n_in] @ turn.T
        parts = np.split(turned, [n_first_axes], axis=1)
        errors = []
        for part, module, found in zip(parts, formats, packed, strict=True):
            if not part.shape[1]:
                continue
            found.append(module.quantize(padded(part)))
            errors.append(module.dequantize(found[-1])[:, : part.shape[1]] - part)
        bounds.append(_lengths(np.concatenate(errors, axis=1) * spread))
    scores = Weight(FIRST_FORMAT, np.concatenate(packed[0]), head.n_out, n_first_axes)
    rest = None
    if packed[1]:
        rest = Weight(REST_FORMAT, np.concatenate(packed[1]), head.n_out, head.n_in - n_first_axes)
    return Screen(scores, rest, axes, _joined(bounds), MARGIN, MARGINS, N_FIRST)


def _joined(bounds: list[NDArray[np.float64]]) -> Floats:
    return np.concatenate(bounds).astype(np.float32)


def _slabs(head: Weight) -> Iterator[Floats]:
    """The head's rows as float32 (16 groups, padded n_in), some at a time."""
    for start in range(0, len(head.data), _SLAB):
        yield weight_format(head.format).dequantize(head.data[start : start + _SLAB])


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
        return [Part("head", n_head, n_head, 1.0, "computed whole")]
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
