"""A line per step and evaluation on stderr."""

from __future__ import annotations

import sys

from engine.training.events import Evaluated, Event, Step
from engine.training.trackers import TrackedRun

PACKAGE = None


def open_tracker(run: TrackedRun) -> Printer:
    """The lines do not name the run."""
    return Printer()


class Printer:
    """Writes to whatever sys.stderr is at the moment."""

    def log(self, event: Event) -> None:
        """Print it, if it has figures."""
        if line := line_of(event):
            sys.stderr.write(line + "\n")

    def close(self) -> None:
        """Nothing is held back."""
        sys.stderr.flush()


def line_of(event: Event) -> str:
    """`step 12/300 · loss 1.873 · …`; "" for events without figures."""
    if isinstance(event, Step):
        skipped = f" · skipped: {event.skipped}" if event.skipped else ""
        return (
            f"step {event.step}/{event.n_steps} · loss {event.loss:.4f} · "
            f"lr {event.learning_rate:.2e} · {event.tokens_per_s:,.0f} tok/s{skipped}"
        )
    if isinstance(event, Evaluated):
        best = " · best so far" if event.is_best else ""
        return (
            f"step {event.step} · held-out loss {event.loss:.4f} · perplexity "
            f"{event.perplexity:.2f} · accuracy {100 * event.accuracy:.1f} %{best}"
        )
    return ""
