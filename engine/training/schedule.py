"""The learning rate of each optimizer step, as a share of the peak."""

from __future__ import annotations

import math


def rate_factor(kind: str, warmup: float, before: float, after: float) -> float:
    """In [0, 1]: it rises in a line during `warmup`, a share of the run, then falls to 0 or stays.

    kind           "cosine", "linear" or "constant"
    before, after  shares of the run that are done when the step begins and when it ends. The rise
                   goes by the end and the fall by the beginning, so that no step is made at 0.
    """
    if after <= warmup:
        return after / warmup
    if kind == "constant":
        return 1.0
    fallen = min(1.0, max(0.0, (before - warmup) / (1 - warmup))) if warmup < 1 else 0.0
    return 1 - fallen if kind == "linear" else (1 + math.cos(math.pi * fallen)) / 2
