"""What a rehearsal found, without torch: whoever shows it need not have it."""

from __future__ import annotations

from typing import NamedTuple


class Rehearsal(NamedTuple):
    """base, cosine: see events.Started. tokens_per_s without the first step, which is slower;
    memory_bytes: the most that the process had. seconds: of the whole run, evaluations left out."""

    base: str
    cosine: float | None
    n_trainable: int
    n_weights: int
    n_steps: int
    tokens_per_s: float
    step_s: float
    seconds: float
    memory_bytes: int
    losses: list[float]
    warnings: list[str]  # of the probe
