"""Levels of sparsity as the user meets them: calibrated when they must be, and told in words.

A level that needs a calibration gets one at once, which takes some twenty seconds for the default
model. Ctrl-C ends that and leaves the model dense.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from bot import render
from bot.failures import EXPECTED
from bot.interrupts import Interrupts
from bot.worker import Worker

if TYPE_CHECKING:
    from engine import LevelCost, Model
    from engine.sparsity.knob import Level
    from engine.sparsity.level_cost import SiteCost

CALIBRATING = "calibrating sparsity, once for this model"
_POLL_S = 0.05

Report = Callable[[str, float], None]  # stage, fraction done in [0, 1]
Result = TypeVar("Result")


class Stopped(Exception):
    """Ctrl-C, heard between two steps of a work."""


@dataclass
class Calibration:
    """One that may happen while a model loads; the two threads talk by it."""

    began: threading.Event = field(default_factory=threading.Event)
    stop: threading.Event = field(default_factory=threading.Event)

    def skip(self) -> bool:
        """Ask it to end; False when it is not at work, or was asked before."""
        if not self.began.is_set() or self.stop.is_set():
            return False
        self.stop.set()
        return True


def use_level(
    model: Model, level: Level, report: Report, calibration: Calibration | None = None
) -> str:
    """Set the level, calibrating the model where that is needed; a line for the user, or "".

    Runs where the model computes. A level that cannot be had leaves the model dense, and the line
    says why.
    """
    import engine

    calibration = calibration or Calibration()
    try:
        if _is_set(model, level):
            return ""
        calibration.began.set()
        began = time.perf_counter()
        engine.calibrate(model, _stoppable(report, calibration.stop))
        model.set_sparsity(level)
    except Stopped:
        model.set_sparsity("off")
        return (
            f"the calibration was stopped, so that sparsity is off until {level} is asked for again"
        )
    except engine.NotCalibratedError:
        model.set_sparsity("off")
        return "sparsity is off: the calibration cannot be kept, see the log"
    except EXPECTED as error:
        model.set_sparsity("off")
        return f"sparsity is off: {error}"
    finally:
        calibration.began.clear()
    return f"sparsity was calibrated in {time.perf_counter() - began:.0f} s, once for this model"


def run_with_progress(
    worker: Worker, interrupts: Interrupts, work: Callable[[Report], Result]
) -> Result:
    """What `work` gives on the worker thread, its progress on stderr meanwhile.

    After Ctrl-C its next report raises Stopped; whether work, too, raises that is its affair.
    """
    stop, status, latest = threading.Event(), render.Status(), ["", 0.0]

    def report(stage: str, fraction: float) -> None:
        if stop.is_set():
            raise Stopped
        latest[:] = stage, fraction

    shown = ""
    try:
        with interrupts.cancelling(stop):
            future = worker.submit(lambda: work(report))
            while not future.done():
                if (line := progress_line(*latest)) != shown:  # type: ignore[arg-type]
                    status.show(line)
                    shown = line
                time.sleep(_POLL_S)
    finally:
        status.clear()
    return future.result()


def progress_line(stage: str, fraction: float) -> str:
    """ "the head …", "measuring fast … 40 %"."""
    percent = f" {100 * fraction:.0f} %" if fraction else ""
    return f"{stage} …{percent}" if stage else ""


def level_line(level: Level, cost: LevelCost | None) -> str:
    """A level and what was measured of it: "balanced · 88 of 98 MB a token · …"."""
    return f"{level} · {cost_words(cost)}" if cost is not None else str(level)


def cost_words(cost: LevelCost) -> str:
    """What a level saves and costs, in one line."""
    gain = cost.dense_s / cost.level_s
    return (
        f"{cost.read_bytes / 1e6:,.1f} of {cost.n_bytes / 1e6:,.1f} MB a token · "
        f"{1 / cost.level_s:.0f} tok/s, dense {1 / cost.dense_s:.0f} ({gain:.2f}x) · "
        f"KL {cost.kl:.4f} ± {cost.kl_error:.4f} · same likeliest token {100 * cost.same:.1f} % "
        f"of {cost.n_tokens:,}"
    )


def part_lines(cost: LevelCost) -> list[str]:
    """A table: what each part of a token's work reads at this level."""
    rows = [("part", "dense MB", "read MB", "done", "")]
    for part in cost.parts:
        dense, read = (f"{size / 1e6:.2f}" for size in (part.dense_bytes, part.read_bytes))
        rows.append((part.name, dense, read, f"{100 * part.active:.1f} %", part.detail))
    dense, read = (f"{size / 1e6:.2f}" for size in (cost.n_bytes, cost.read_bytes))
    rows.append(("token", dense, read, "", ""))
    return table(rows)


def site_lines(sites: Sequence[SiteCost]) -> list[str]:
    """A table: what each layer leaves out where, what that costs and saves, and why some do not."""
    if not sites:
        return []
    rows: list[tuple[str, ...]] = [("layers", "read", "KL", "dense MB", "read MB", "saved", "")]
    for name in dict.fromkeys(site.site for site in sites):
        some = [site for site in sites if site.site == name]
        for is_whole, group in itertools.groupby(some, key=lambda site: site.active == 1):
            run = list(group)
            rows += [_site_row(run)] if is_whole else [_site_row([site]) for site in run]
    return table(rows)


def _site_row(run: Sequence[SiteCost]) -> tuple[str, ...]:
    """One line for some layers that are alike."""
    first, last = run[0], run[-1]
    layers = f"{first.layer}" if len(run) == 1 else f"{first.layer}-{last.layer}"
    dense, read = (
        sum(getattr(site, name) for site in run) for name in ("dense_bytes", "read_bytes")
    )
    kl, saved_s = (_total(run, name) for name in ("kl", "saved_s"))
    return (
        f"{first.site} {layers}",
        f"{100 * sum(site.active for site in run) / len(run):.1f} %",
        "" if kl is None else f"{kl:.4f}",
        f"{dense / 1e6:.2f}",
        f"{read / 1e6:.2f}",
        "" if saved_s is None else f"{1e6 * saved_s:.0f} µs",
        _why_whole(run) if first.active == 1 else "",
    )


def _total(run: Sequence[SiteCost], name: str) -> float | None:
    values = [getattr(site, name) for site in run]
    return None if None in values else sum(values)


def _why_whole(run: Sequence[SiteCost]) -> str:
    """What would have to be left out before that saved time here."""
    pays_below = run[0].pays_below
    if pays_below is None:
        return ""
    losses = [site.kl_there for site in run if site.kl_there is not None]
    if not pays_below or not losses:
        return "never faster here"
    low, high = min(losses), max(losses)
    loss = f"{low:.3f}" if len(losses) == 1 else f"{low:.3f} to {high:.3f}"
    return f"faster below {100 * pays_below:.0f} % read, where a layer's KL is {loss}"


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with the first column and the last to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        first, *middle, last = (
            cell.rjust(width) if 0 < i < len(row) - 1 else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join([first, *middle, last]).rstrip())
    return lines


def to_record(model: Model) -> dict[str, Any]:
    """The level in use, and what was measured of it when the model was calibrated, for JSON."""
    cost = cost_in_use(model)
    return {"level": model.sparsity.level} if cost is None else cost.record()


def cost_in_use(model: Model) -> LevelCost | None:
    """What was measured of the level in use; None where it skips nothing, or was not measured."""
    if not model.sparsity.skips:
        return None
    import engine

    return engine.level_costs(model).get(model.sparsity.level)


def _is_set(model: Model, level: Level) -> bool:
    """Whether the level could be set as it is."""
    import engine

    try:
        model.set_sparsity(level)
    except engine.NotCalibratedError:
        return False
    return True


def _stoppable(report: Report, stop: threading.Event) -> Report:
    def tell(stage: str, fraction: float) -> None:
        if stop.is_set():
            raise Stopped
        report(f"{CALIBRATING}: {stage}", fraction)

    return tell
