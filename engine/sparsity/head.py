"""Screens of the vocabulary head: smaller matrices that tell which rows of it a token needs.

A token of a small model spends a third of its time on the head, to find a few words among tens of
thousands. A screen has a bound for each row of how far it may be off, and the decoder computes
exactly all that could be among the best (engine/kernels/head.py).

certified   the head in four bits. Its bounds hold for every hidden state: the screen's error is the
            product of the state with what the rounding took from the row, and by Cauchy and Schwarz
            no more than the product of their lengths. The best logits are those of the dense head.
calibrated  the head in the few directions in which hidden states make a difference to it, found on
            states of text (the low-rank factors of W C^1/2, where C is the states' covariance). Its
            bounds are what its errors are like on such text, and how many of them are allowed for
            is measured on text that was kept apart.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from engine.formats import Weight, weight_format
from engine.kernels.layout import padded
from engine.plan import Screen

Floats = NDArray[np.float32]

CERTIFIED_FORMAT, CALIBRATED_FORMAT, BASIS_FORMAT = "q4_0", "q4_0", "q8"
# of a row's length: what the arithmetic of the two products may add to the difference between them.
# Activations are rounded to 1/64,516 of the largest of 32 (float weights take them unrounded), and
# sums of some hundred float32 are off by less than that again.
_ARITHMETIC = 2e-4
# of the bounds: they are computed from float32 themselves
CERTIFIED_MARGIN = 1.0 + 1e-4
_SLAB = 256  # groups of rows that are worked on at a time


def certified(head: Weight) -> Screen:
    """The screen whose bounds hold for every state, with a margin of CERTIFIED_MARGIN."""
    parts, bounds = [], []
    for rows in _slabs(head):
        quantized = weight_format(CERTIFIED_FORMAT).quantize(rows)
        error = weight_format(CERTIFIED_FORMAT).dequantize(quantized) - rows
        parts.append(quantized)
        bounds.append(_lengths(error) + _ARITHMETIC * _lengths(rows))
    scores = Weight(CERTIFIED_FORMAT, np.concatenate(parts), head.n_out, head.n_in)
    return Screen(scores, None, np.concatenate(bounds).astype(np.float32))


def calibrated(head: Weight, states: Floats, rank: int) -> Screen:
    """The screen of the `rank` directions that matter most to the head at these states.

    states  (n, hidden_size) float32: what the head is multiplied with, after the last norm
    The bounds are the root mean square error of each row at such states, for one of length 1.
    """
    states = states / np.linalg.norm(states, axis=1, keepdims=True)
    covariance = (states.T @ states / len(states)).astype(np.float64)
    values, vectors = np.linalg.eigh(covariance)
    # directions that text does not have are unlikely, not impossible
    values = np.maximum(values, 1e-3 * values.mean())
    root, inverse = vectors * np.sqrt(values), vectors / np.sqrt(values)
    gram = np.zeros_like(covariance)
    for rows in _slabs(head):
        seen = rows[:, : head.n_in] @ root
        gram += seen.T @ seen
    _, directions = np.linalg.eigh(gram)
    kept = directions[:, ::-1][:, :rank]  # in whitened states, best first
    basis = _packed((inverse @ kept).T.astype(np.float32), BASIS_FORMAT)
    rounded_basis = _values(basis).astype(np.float64)
    parts, bounds = [], []
    for rows in _slabs(head):
        rows = rows[:, : head.n_in]
        # root' inverse = 1: the coordinates of a row in the directions kept
        quantized = weight_format(CALIBRATED_FORMAT).quantize(
            padded((rows @ (root @ kept)).astype(np.float32))
        )
        screened = weight_format(CALIBRATED_FORMAT).dequantize(quantized)[:, :rank]
        error = rows - screened @ rounded_basis
        parts.append(quantized)
        bounds.append(_lengths(error @ root))
    scores = Weight(CALIBRATED_FORMAT, np.concatenate(parts), head.n_out, rank)
    return Screen(scores, basis, np.concatenate(bounds).astype(np.float32))


def _slabs(head: Weight) -> Iterator[Floats]:
    """The head's rows as float32 (16 groups, padded n_in), some at a time."""
    for start in range(0, len(head.data), _SLAB):
        yield weight_format(head.format).dequantize(head.data[start : start + _SLAB])


def _lengths(rows: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.sqrt(np.square(rows, dtype=np.float64).sum(axis=1))


def _packed(values: Floats, name: str) -> Weight:
    return Weight(name, weight_format(name).quantize(padded(values)), *values.shape)


def _values(weight: Weight) -> Floats:
    rows: Floats = weight_format(weight.format).dequantize(weight.data)
    return rows[: weight.n_out, : weight.n_in]


def n_bytes(screen: Screen) -> int:
    """What a token reads of it."""
    basis = 0 if screen.basis is None else screen.basis.data.nbytes
    return screen.scores.data.nbytes + basis + screen.bounds.nbytes
