"""An event's figures by name, as every tracker calls them."""

from __future__ import annotations

import math

from engine.training.events import Evaluated, Event, Step


def figures(event: Event) -> dict[str, float]:
    """Those of a step or an evaluation, finite ones alone; {} for other events."""
    if isinstance(event, Step):
        found = {
            "train/loss": event.loss,
            "train/learning_rate": event.learning_rate,
            "train/grad_norm": event.grad_norm,
            "train/tokens_per_s": event.tokens_per_s,
            "train/memory_bytes": float(event.memory_bytes),
        }
    elif isinstance(event, Evaluated):
        found = {
            "val/loss": event.loss,
            "val/perplexity": event.perplexity,
            "val/accuracy": event.accuracy,
        }
    else:
        return {}
    return {name: value for name, value in found.items() if math.isfinite(value)}
