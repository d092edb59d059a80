"""Where a run stands: all that changes from step to step and is no array."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from engine.training.feed import Place


@dataclass
class Progress:
    """Goes into every checkpoint.

    step            optimizer steps that were made, skipped ones among them
    place, epochs   of the data that is next, and how many epochs are done
    recent          the last losses; n_skipped, n_in_row: steps left out in all and at the end
    evaluate_every  settled at the start from the run's length, as n_steps was expected to be
    first_val_loss  before the first step; best_*: of the evaluations since; n_worse: those after it
    evaluated_at    the step; is_due: whether the one of this step is still to be made, as before
                    the first step and where it was stopped
    base_answers    to the fixed prompts, before the first step
    """

    step: int = 0
    place: Place = field(default_factory=Place)
    epochs: float = 0.0
    n_tokens: int = 0
    seconds: float = 0.0
    recent: list[float] = field(default_factory=list)
    n_skipped: int = 0
    n_in_row: int = 0
    evaluate_every: int = 0
    first_val_loss: float | None = None
    best_loss: float | None = None
    best_step: int | None = None
    n_worse: int = 0
    evaluated_at: int = -1
    is_due: bool = True
    base_answers: list[str] = field(default_factory=list)

    def as_facts(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"place": list(self.place)}

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> Progress:
        """What as_facts gave; TypeError for facts of another version."""
        known = {f.name for f in fields(cls)}
        values = {key: value for key, value in facts.items() if key in known}
        return cls(**values | {"place": Place(*facts["place"])})


class Clock:
    """Tokens a second over the last steps, and what is left at that speed."""

    REMEMBERED = 10

    def __init__(self) -> None:
        self._steps: list[tuple[int, float]] = []  # tokens, seconds
        self._began = time.perf_counter()

    def begin(self) -> None:
        """A step begins now; what was between the steps does not count."""
        self._began = time.perf_counter()

    def end(self, n_tokens: int) -> float:
        """A step of n_tokens ends now; returns its seconds."""
        seconds = time.perf_counter() - self._began
        self._steps.append((n_tokens, seconds))
        del self._steps[: -self.REMEMBERED]
        return seconds

    @property
    def tokens_per_s(self) -> float:
        """0 before the first step."""
        seconds = sum(s for _, s in self._steps)
        return sum(n for n, _ in self._steps) / seconds if seconds else 0.0

    def eta_s(self, n_left: int) -> float:
        """Seconds for n_left steps, without evaluations."""
        return n_left * sum(s for _, s in self._steps) / max(len(self._steps), 1)
