"""The curves of a run: characters for a terminal, a PNG for everywhere else."""

from __future__ import annotations

import os
from pathlib import Path

from bot import plot
from bot.training.history import History

NEEDED = "a PNG needs matplotlib, which is not installed: pip install matplotlib"


def curves_of(history: History) -> list[plot.Curve]:
    """Loss of the rows trained on and of held-out rows, by step; empty ones are left out."""
    trained = _points(history.steps)
    held_out = _points(history.evaluations)
    found = [plot.Curve("trained", ".", trained), plot.Curve("held out", "o", held_out)]
    return [curve for curve in found if curve.points]


def draw(history: History, target: Path) -> None:
    """Write the PNG; ValueError with the pip command without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ValueError(NEEDED) from None
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for curve in curves_of(history):
        x, y = zip(*curve.points, strict=True)
        marker, alpha = ("o", 1.0) if curve.mark == "o" else ("", 0.6)
        axes.plot(x, y, marker=marker, markersize=4, alpha=alpha, label=curve.name)
    if history.best is not None:
        best = history.best
        axes.axvline(best["step"], color="0.7", linewidth=0.8, linestyle="--")
        axes.set_title(f"{history.name}: {best['loss']:.4f} at step {best['step']:,}", fontsize=10)
    axes.set_xlabel("step")
    axes.set_ylabel("loss, nats a token")
    axes.grid(alpha=0.3)
    axes.legend()
    temporary = target.with_name(f"{target.name}.tmp-{os.getpid()}")
    try:
        figure.savefig(temporary, dpi=120, format="png")
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _points(lines: tuple[dict[str, float], ...]) -> list[tuple[float, float]]:
    """(step, loss) of the lines whose loss was a number."""
    return [(line["step"], line["loss"]) for line in lines if line.get("loss") is not None]
