"""Rotary position embedding: frequencies and the cos/sin table, every scaling kind.

RoPE turns the dimension pair i of a query or key at position p by the angle p * f_i, where
f_i = theta ** (-2 i / rotary_dim) (Su et al. 2021, https://arxiv.org/abs/2104.09864). A scaling
kind changes f_i so that a model reaches beyond the length it was trained on.

Frequencies and angles are rounded to float32 at the same steps as in transformers: angles grow with
the position, so a frequency that differs in its last bit would be visible at position 10,000.
Axis letters: T positions, D = rotary_dim.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from engine.config import Rope, RopeScaling

Float32 = NDArray[np.float32]

_ONE = np.float32(1)


def rotation_table(
    rope: Rope, rotary_dim: int, positions: NDArray[np.integer], seq_len: int, max_seq_len: int
) -> tuple[Float32, Float32]:
    """cos and sin of every angle, already multiplied by the attention factor.

    positions  (T,) integers; rotary_dim, seq_len, max_seq_len as in `inverse_frequencies`
    returns    cos, sin: (T, D / 2) float32; both halves of a head, or both members of an
               interleaved pair, use the same column
    """
    frequencies, attention_factor = inverse_frequencies(rope, rotary_dim, seq_len, max_seq_len)
    angles = np.asarray(positions).astype(np.float32)[:, None] * frequencies
    # in float64: float32 cos and sin differ in the last bit from one CPU's vector unit to another's
    cos, sin = np.empty_like(angles), np.empty_like(angles)
    np.cos(angles, out=cos, dtype=np.float64, casting="same_kind")
    np.sin(angles, out=sin, dtype=np.float64, casting="same_kind")
    scale = np.float32(attention_factor)
    return cos * scale, sin * scale


def inverse_frequencies(
    rope: Rope, rotary_dim: int, seq_len: int, max_seq_len: int
) -> tuple[Float32, float]:
    """Angle per position step of every rotated pair, and the factor for cos and sin.

    rotary_dim   how many dimensions of a head are rotated, even
    seq_len      tokens in the sequence so far; only "dynamic" depends on it, and only beyond the
                 trained length: its keys must then be rotated anew, or stay at the frequencies
                 they were cached with, as in transformers
    max_seq_len  stands in for the trained length where scaling.original_max_seq_len is 0
    returns      (D / 2,) float32, attention factor (1.0 except for "yarn")
    ValueError   for a scaling that has no meaning, or frequency_divisors of another length
    """
    _check(rope, rotary_dim)
    trained_len = rope.scaling.original_max_seq_len or max_seq_len
    if rope.scaling.kind == "longrope":
        frequencies = _longrope(rope, rotary_dim, is_long(rope, seq_len, max_seq_len))
    elif rope.scaling.kind == "dynamic":
        theta = _dynamic_theta(rope, rotary_dim, seq_len, trained_len)
        frequencies = _ONE / _wavelengths(theta, rotary_dim)
    else:
        frequencies = _SCALINGS[rope.scaling.kind](rope, rotary_dim, trained_len)
    if rope.frequency_divisors:
        divisors: Float32 = np.array(rope.frequency_divisors, dtype=np.float32)
        frequencies = frequencies / divisors
    return frequencies, _attention_factor(rope.scaling, trained_len)


def is_long(rope: Rope, total: int, max_seq_len: int) -> bool:
    """Whether a text of `total` tokens takes longrope's factors for long texts; max_seq_len stands
    in for the trained length as in `inverse_frequencies`."""
    scaling = rope.scaling
    return scaling.kind == "longrope" and total > (scaling.original_max_seq_len or max_seq_len)


def depends_on_length(rope: Rope) -> bool:
    """Whether a position turns by other angles in a longer text."""
    return rope.scaling.kind in ("dynamic", "longrope")


def _check(rope: Rope, rotary_dim: int) -> None:
    if rotary_dim < 2 or rotary_dim % 2:
        raise ValueError(f"rotary dimension must be even and at least 2, got {rotary_dim}")
    if not 1 < rope.theta < 1e30:  # beyond 1e38 its powers leave float32
        raise ValueError(f"rope theta must be greater than 1 and below 1e30, got {rope.theta}")
    scaling = rope.scaling
    if scaling.kind != "none" and not 0 < scaling.factor < math.inf:
        raise ValueError(
            f"rope scaling {scaling.kind!r} needs a positive factor, got {scaling.factor}"
        )
    if scaling.kind == "llama3" and not 0 < scaling.low_freq_factor < scaling.high_freq_factor:
        raise ValueError(
            "rope scaling 'llama3' needs 0 < low_freq_factor < high_freq_factor, got "
            f"{scaling.low_freq_factor} and {scaling.high_freq_factor}"
        )
    if scaling.kind == "yarn" and not (scaling.beta_fast >= 0 and scaling.beta_slow >= 0):
        raise ValueError(
            "rope scaling 'yarn' needs beta_fast and beta_slow of at least 0, got "
            f"{scaling.beta_fast} and {scaling.beta_slow}"
        )
    if scaling.kind == "longrope":
        for name in ("short_factors", "long_factors"):
            factors = getattr(scaling, name)
            if len(factors) != rotary_dim // 2 or not all(0 < f < math.inf for f in factors):
                raise ValueError(
                    f"rope scaling 'longrope' needs {rotary_dim // 2} positive {name}, one "
                    f"for each rotated pair, got {len(factors)}"
                )
    n_divisors = len(rope.frequency_divisors)
    if n_divisors and n_divisors != rotary_dim // 2:
        raise ValueError(
            f"rope has {n_divisors} frequency divisors for {rotary_dim // 2} rotated pairs; "
            "there must be one for each"
        )
    if not all(0 < divisor < math.inf for divisor in rope.frequency_divisors):
        raise ValueError("rope frequency divisors must all be positive and finite")


def _wavelengths(theta: float, rotary_dim: int) -> Float32:
    """theta ** (2 i / D), (D / 2,) float32: 1 / f_i."""
    exponents = np.arange(0, rotary_dim, 2, dtype=np.float32) / np.float32(rotary_dim)
    # the power in float64 and rounded once; powf of one C library is not that of another
    return np.power(np.float64(np.float32(theta)), exponents.astype(np.float64)).astype(np.float32)


def _unscaled(rope: Rope, rotary_dim: int, trained_len: int) -> Float32:
    return _ONE / _wavelengths(rope.theta, rotary_dim)


def _linear(rope: Rope, rotary_dim: int, trained_len: int) -> Float32:
    """Position interpolation: positions are squeezed by the factor.

    Chen et al. 2023, https://arxiv.org/abs/2306.15595.
    """
    return _unscaled(rope, rotary_dim, trained_len) / np.float32(rope.scaling.factor)


def _dynamic_theta(rope: Rope, rotary_dim: int, seq_len: int, trained_len: int) -> float:
    """A base that grows with the sequence once that is longer than the trained length.

    "Dynamic NTK": Peng et al. 2023, https://arxiv.org/abs/2309.00071, section 3.3.
    """
    if seq_len <= trained_len or rotary_dim == 2:  # the only frequency of 2 dimensions is 1
        return rope.theta
    factor = rope.scaling.factor
    growth = factor * seq_len / trained_len - (factor - 1)
    return float(rope.theta * growth ** (rotary_dim / (rotary_dim - 2)))


def _llama3(rope: Rope, rotary_dim: int, trained_len: int) -> Float32:
    """Llama 3.1: low frequencies are divided by the factor, high ones kept, a ramp between.

    "The Llama 3 Herd of Models", https://arxiv.org/abs/2407.21783; the rule itself is published
    in code only, https://github.com/meta-llama/llama-models (apply_scaling).
    """
    scaling = rope.scaling
    frequencies = _unscaled(rope, rotary_dim, trained_len)
    # how often a pair turns within the trained length decides which of the three it is; reciprocal
    # first, because that is how torch divides a number by a tensor
    turns = _ONE / (_ONE / frequencies * np.float32(2 * math.pi)) * np.float32(trained_len)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    kept = _ramp(turns, low, high)
    return (_ONE - kept) * frequencies / np.float32(scaling.factor) + kept * frequencies


def _yarn(rope: Rope, rotary_dim: int, trained_len: int) -> Float32:
    """YaRN: interpolate the slow pairs, keep the fast ones, a linear ramp between.

    Peng et al. 2023, https://arxiv.org/abs/2309.00071, section 3.2.
    """
    scaling = rope.scaling

    def pair_that_turns(n_turns: float) -> float:
        """The (fractional) pair that turns n_turns times within the trained length."""
        turns_at_0 = trained_len / (2 * math.pi * n_turns)
        return rotary_dim * math.log(turns_at_0) / (2 * math.log(rope.theta))

    first = pair_that_turns(scaling.beta_fast or 32.0)
    last = pair_that_turns(scaling.beta_slow or 1.0)
    if scaling.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, rotary_dim - 1)
    if first == last:
        last += 0.001  # a ramp of no width would divide by zero
    kept = _ONE - _ramp(np.arange(rotary_dim // 2, dtype=np.float32), first, last)
    wavelengths = _wavelengths(rope.theta, rotary_dim)
    squeezed = _ONE / (np.float32(scaling.factor) * wavelengths)
    return squeezed * (_ONE - kept) + _ONE / wavelengths * kept


def _longrope(rope: Rope, rotary_dim: int, is_long: bool) -> Float32:
    """LongRoPE: each pair has its own factor, found by search, for short texts and for long ones.

    Ding et al. 2024, https://arxiv.org/abs/2402.13753.
    """
    factors = rope.scaling.long_factors if is_long else rope.scaling.short_factors
    return _ONE / (np.array(factors, np.float32) * _wavelengths(rope.theta, rotary_dim))


def _ramp(values: Float32, start: float, stop: float) -> Float32:
    """0 up to start, 1 from stop on, a straight line between."""
    line: Float32 = (values - np.float32(start)) / np.float32(stop - start)
    return line.clip(0, 1)


def _attention_factor(scaling: RopeScaling, trained_len: int) -> float:
    """YaRN's scale of cos and sin: the square root of the attention temperature 1 / t.

    https://arxiv.org/abs/2309.00071, section 3.4; mscale and mscale_all_dim are DeepSeek's
    variant, https://arxiv.org/abs/2405.04434, whose ratio is what cos and sin carry. LongRoPE's is
    sqrt(1 + ln(factor) / ln(trained length)).
    """
    if scaling.kind not in ("yarn", "longrope"):
        return 1.0
    if scaling.attention_factor is not None:
        return float(scaling.attention_factor)

    if scaling.kind == "longrope":
        grown = max(scaling.factor, 1.0)
        return math.sqrt(1 + math.log(grown) / math.log(trained_len))

    def magnitude(weight: float) -> float:
        return 0.1 * weight * math.log(scaling.factor) + 1.0 if scaling.factor > 1 else 1.0

    if scaling.mscale and scaling.mscale_all_dim:
        return magnitude(scaling.mscale) / magnitude(scaling.mscale_all_dim)
    return magnitude(1.0)


_SCALINGS: dict[str, Callable[[Rope, int, int], Float32]] = {
    "none": _unscaled,
    "linear": _linear,
    "llama3": _llama3,
    "yarn": _yarn,
}
