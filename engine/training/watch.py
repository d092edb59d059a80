"""Which steps must not change the weights, by rule, and when a run has to stop."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

REMEMBERED = 32  # losses
ENOUGH = 8  # of them, before a loss can be called unusual


def why_skip(loss: float, grad_norm: float, recent: Sequence[float], max_spike: float) -> str:
    """Why a step with this loss (nats a token) and gradient is left out; "" when it is not.

    recent     the losses of the steps before it
    max_spike  nats above their median; 0 = any loss that is a number is usual
    """
    if not math.isfinite(loss):
        return f"the loss is {loss}"
    if not math.isfinite(grad_norm):
        return f"the gradient's norm is {grad_norm}"
    if max_spike and len(recent) >= ENOUGH and loss > median(recent) + max_spike:
        return f"the loss of {loss:.3f} is a spike: {median(recent):.3f} is usual"
    return ""


def remember(recent: list[float], loss: float) -> None:
    """Add the loss to the last REMEMBERED ones, in place."""
    if math.isfinite(loss):
        recent.append(loss)
        del recent[:-REMEMBERED]


def stop_line(step: int, n_in_row: int, reason: str, learning_rate: float) -> str:
    """Why a run stops after n_in_row skipped steps, and what to do."""
    return (
        f"stopped at step {step}: {n_in_row} steps in a row were skipped, the last because "
        f"{reason}; lower learning_rate (it was {learning_rate:.1e}) or look at the data with "
        "`sparsechat train check`"
    )
