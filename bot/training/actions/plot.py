"""Draw a run's losses: in the terminal, and as a PNG in its folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from bot import render


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run, and the file."""
    parser.add_argument("run", metavar="RUN", help="its name, or its folder")
    parser.add_argument("--out", metavar="FILE", type=Path, help="the PNG (loss.png in its folder)")


def run(args: argparse.Namespace) -> int:
    """0; 1 when there is nothing to draw, or the PNG could not be drawn."""
    from bot import plot
    from bot.training import picture
    from bot.training.history import history_of
    from bot.training.names import find_run

    found = find_run(args.run)
    history = history_of(found)
    curves = picture.curves_of(history)
    if history.problem or not curves:
        render.complain(history.problem or f"run {found.name} has made no step yet")
        return 1
    for line in plot.curves(curves, "step", "loss, nats a token"):
        render.out(line)
    target = args.out or found.folder / "loss.png"
    picture.draw(history, target)
    render.err(f"written to {target}")
    return 0
