"""Matrix products, those in float32 by the quicker of the two libraries inside torch.

torch.mm goes to MKL, which takes its AVX2 path on CPUs that are not Intel's: 214 GFLOP/s on two
cores of Zen 5 where oneDNN, which chooses by instructions, gives 490. On Intel's with AVX-512 MKL
is a tenth quicker, and with yᵀ x, which oneDNN's operator copies first, twice: 350 and 180.
Where AVX2 is all there is, each stumbles over some strides: x Wᵀ 127 by oneDNN and 55-90 by MKL,
yᵀ x 70-105 and 103-139, x W of a W with long rows 91 and 112.
So the choice is fixed, not timed: a run that is resumed computes with the same sums.

Where there is AMX, rounded products are of factors of float32 that become bfloat16 on their way
into its tiles; sums stay float32. They take a quarter of the time, and are off by 0.0024 of their
size.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch

from engine.kernels.cpu import instructions

Tensor = Any  # torch has no types for mypy here


def _onednn() -> Callable[..., Tensor] | None:
    """oneDNN's x Wᵀ + b as an operator of torch, where this build has it."""
    if not torch.backends.mkldnn.is_available():
        return None
    try:
        operator: Callable[..., Tensor] = torch.ops.mkldnn._linear_pointwise.default
    except AttributeError:
        return None
    return operator


def has_quick_bf16() -> bool:
    """Whether products of bfloat16 are quicker than those of float32.

    AMX is, and AVX512-BF16 of AMD's; Intel's without AMX takes twice the time of float32.
    """
    if has_amx():
        return True
    has_bf16 = getattr(torch.cpu, "_is_avx512_bf16_supported", bool)()
    return bool(has_bf16) and not _is_intel()


def has_amx() -> bool:
    """Whether products of bfloat16 take an eighth of the time of float32, and no more than int8."""
    return bool(getattr(torch.cpu, "_is_amx_tile_supported", bool)())


def has_quick_int8() -> bool:
    """Whether products of int8 are quicker than those of float32.

    With VNNI they take a quarter of the time; without it torch has plain loops, twenty times it.
    """
    return instructions().endswith("vnni")


def has_quick_int16() -> bool:
    """Whether products of int16 are quicker than those of float32, and none of int8 are.

    AVX2 multiplies and adds two pairs of int16 where it does one of float32.
    """
    return instructions() == "avx2"


@cache
def _is_intel() -> bool:
    """By Linux's description of the processors, or what Python knows of them elsewhere."""
    try:
        return "GenuineIntel" in Path("/proc/cpuinfo").read_text("utf-8")
    except (OSError, ValueError):
        return "GenuineIntel" in platform.processor()


# of products of float32 by oneDNN: torch 2.9 and later. Without AMX nothing is known to be gained
_PRECISION = getattr(torch.backends.mkldnn, "matmul", None) if has_amx() else None
_HAS_AVX512 = instructions().startswith("avx512")
_LINEAR = None if _is_intel() and _HAS_AVX512 else _onednn()
_SKINNY = 8  # below that many rows, columns or terms oneDNN's preparations cost more than the sums
_THIN = 64  # the same of yᵀ x


def times_transposed(x: Tensor, w: Tensor, rounded: bool = False) -> Tensor:
    """x (T, K) times wᵀ, w (N, K) -> (T, N); of one dtype, strides as they are."""
    with _rounding(rounded):
        if _LINEAR is None or x.dtype != torch.float32 or min(*x.shape, w.shape[0]) < _SKINNY:
            return x @ w.t()
        return _LINEAR(x, w, None, "none", [], "")


def times(x: Tensor, w: Tensor, rounded: bool = False) -> Tensor:
    """x (T, N) times w (N, K) -> (T, K)."""
    if w.shape[1] > w.shape[0] and not _HAS_AVX512:
        with _rounding(rounded):
            return x @ w
    return times_transposed(x, w.t(), rounded)


def transposed_times(y: Tensor, x: Tensor, rounded: bool = False) -> Tensor:
    """yᵀ x of y (T, N) and x (T, K) -> (N, K): the gradient of a matrix."""
    with _rounding(rounded):
        if x.dtype == torch.float32:
            is_thin = min(*x.shape, y.shape[1]) <= _THIN
            if is_thin and y.shape[1] < x.shape[1]:
                return (x.t() @ y).t()
            if _LINEAR is not None and _HAS_AVX512 and not is_thin:
                return _LINEAR(y.t(), x.t(), None, "none", [], "")
        return y.t() @ x


@contextmanager
def _rounding(rounded: bool) -> Iterator[None]:
    """Within, oneDNN rounds factors of float32 to bfloat16, where that is quicker."""
    if not rounded or _PRECISION is None:
        yield
        return
    before, _PRECISION.fp32_precision = _PRECISION.fp32_precision, "bf16"
    try:
        yield
    finally:
        _PRECISION.fp32_precision = before
