"""Measure what a model may skip, and show what that costs and saves.

`calibrate` takes some thirty seconds for the default model and happens by itself when a level needs
it. `report` shows what was measured then, by part, layer and site, and a picture of quality against
speed; the first report after a calibration also measures each method alone. With --json, one object
goes to stdout and nothing else does.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bot import plot, render
from engine.sparsity.limits import limits

if TYPE_CHECKING:
    from bot.interrupts import Interrupts
    from bot.loading import LoadedModel, ModelLoader
    from engine import LevelCost

_AXES = "speed, dense = 1", "exp(KL) - 1, %"
_PROMISES = (2.0, "balanced: at most 2 %"), (5.0, "fast: at most 5 %")
CLOSE_S = 0.5
INTERRUPTED = 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """calibrate, report."""
    actions = parser.add_subparsers(dest="sparsity_action", metavar="ACTION", required=True)
    for name, summary in (
        ("calibrate", "measure a model anew, and each level on answers of its own"),
        ("report", "each level: what a token reads, its speed, and how far it is from dense"),
    ):
        action = actions.add_parser(name, help=summary, description=summary)
        action.add_argument(
            "model",
            metavar="MODEL",
            nargs="?",
            help="name of a model, GGUF file or model folder; not given = as for chat",
        )
        action.add_argument("--json", action="store_true", help="one JSON object on stdout")
        action.add_argument(
            "--png", metavar="FILE", type=Path, help="draw quality against speed to this file"
        )
        action.add_argument(
            "-v", "--verbose", action="count", default=argparse.SUPPRESS, help="log to stderr too"
        )
        if name == "report":
            action.add_argument(
                "--results",
                metavar="FILE",
                type=Path,
                help="what `python -m benchmarks.sparsity` wrote: more points for the picture",
            )


def run(args: argparse.Namespace) -> int:
    """0; 1 when `report` finds nothing; 130 after Ctrl-C."""
    from bot.interrupts import Interrupts
    from bot.loading import Interrupted, ModelLoader
    from bot.sparsity import Stopped
    from bot.worker import Worker

    points = [] if getattr(args, "results", None) is None else results_points(args.results)
    worker, interrupts = Worker(), Interrupts()
    costs: list[LevelCost] = []
    methods: list[LevelCost] = []
    loader = ModelLoader(worker)
    with interrupts:
        try:
            loaded = _loaded(args.model, loader, interrupts)
            if args.sparsity_action == "calibrate":
                costs = _calibrated(loaded, loader, interrupts)
            else:
                costs, methods = _kept(loaded, loader, interrupts)
        except (Interrupted, Stopped):
            render.err("interrupted: nothing was kept")
            return INTERRUPTED
        finally:
            worker.close(CLOSE_S)
    if not costs:
        shown = f" {args.model}" if args.model else ""
        render.complain(
            f"{loaded.name} was not calibrated; `sparsechat sparsity calibrate{shown}` does it"
        )
        return 1
    found = [plot.Point("off", 1.0, 0.0), *map(point_of, [*costs, *methods]), *points]
    if args.png is not None:
        from bot import picture

        picture.draw(found, *_AXES, _PROMISES).save(args.png)
    if args.json:
        record = _record(loaded, costs, methods)
        render.out(json.dumps(record, ensure_ascii=False, allow_nan=False))
        return 0
    whole = list(limits(loaded.model.config))
    for line in [*lines_of(costs, methods), *whole, *plot.scatter(found, *_AXES)]:
        render.out(line)
    return 0


def lines_of(costs: list[LevelCost], methods: list[LevelCost]) -> list[str]:
    """Tables for each level, then a line for each method."""
    from bot.sparsity import cost_words, part_lines, site_lines

    lines: list[str] = []
    for cost in costs:
        lines += [f"{cost.level}: {cost_words(cost)}", *part_lines(cost), ""]
        if sites := site_lines(cost.sites):
            lines += [*sites, ""]
    lines += [f"{method.level}: {cost_words(method)}" for method in methods]
    return [*lines, ""] if methods else lines


def point_of(cost: LevelCost) -> plot.Point:
    """Where a level or a method lies in the picture."""
    error = 100 * math.exp(cost.kl) * cost.kl_error
    return plot.Point(str(cost.level), cost.dense_s / cost.level_s, lost(cost.kl), error)


def lost(kl: float) -> float:
    """exp(KL) - 1, in per cent: how much perplexity grows at most on what the dense model says."""
    return 100 * math.expm1(kl)


def results_points(path: Path) -> list[plot.Point]:
    """The settings of a results file of benchmarks.sparsity; ValueError for another file.

    Of its rows, "decode" has the ratio to the dense speed of a case "SETTING, top 40", and
    "exp(KL) - 1" the loss of "SETTING, top 40, chat".
    """
    speeds, losses = {}, {}
    try:
        for row in json.loads(path.read_text(encoding="utf-8"))["rows"]:
            setting, _, rest = row["case"].partition(", ")
            if (row["metric"], rest) == ("decode", "top 40"):
                speeds[setting] = float(row["ratio"])  # of the most threads: those come last
            elif (row["metric"], rest) == ("exp(KL) - 1", "top 40, chat"):
                losses[setting] = 100 * float(row["ours"])
    except (ValueError, KeyError, TypeError, AttributeError):
        speeds = {}
    names = [name for name in losses if name in speeds]
    if not names:
        raise ValueError(
            f"{path} has no speed beside a loss; `python -m benchmarks.sparsity` writes such a file"
        )
    return [plot.Point(f"{name} (results)", speeds[name], losses[name]) for name in names]


def _loaded(name: str | None, loader: ModelLoader, interrupts: Interrupts) -> LoadedModel:
    from bot.config import read_config
    from bot.loading import find_model

    settings = read_config({"sparsity": "off", **({"model": name} if name else {})}).settings()
    status = render.Status()
    loader.start(find_model(settings.model), settings)
    try:
        return loader.wait(interrupts, status.show)
    finally:
        status.clear()


def _calibrated(
    loaded: LoadedModel, loader: ModelLoader, interrupts: Interrupts
) -> list[LevelCost]:
    import engine
    from bot.sparsity import run_with_progress

    found = run_with_progress(
        loader.worker, interrupts, lambda report: engine.calibrate(loaded.model, report)
    )
    return list(found.values())


def _kept(
    loaded: LoadedModel, loader: ModelLoader, interrupts: Interrupts
) -> tuple[list[LevelCost], list[LevelCost]]:
    """Levels and methods; [] before a calibration. Ctrl-C leaves the methods out."""
    import engine
    from bot.sparsity import Stopped, run_with_progress

    model = loaded.model
    costs = list(engine.level_costs(model).values())
    methods = engine.method_costs(model)
    if costs and not methods:
        try:
            methods = run_with_progress(
                loader.worker, interrupts, lambda report: engine.measure_methods(model, report)
            )
        except Stopped:
            render.err("stopped: the report is without the methods alone")
    return costs, methods


def _record(
    loaded: LoadedModel, costs: list[LevelCost], methods: list[LevelCost]
) -> dict[str, Any]:
    return {
        "model": {
            "name": loaded.name,
            "fingerprint": loaded.model.fingerprint,
            "weight_format": loaded.model.weight_format,
        },
        "threads": loaded.model.threads,
        "levels": [cost.record() for cost in costs],
        "methods": [cost.record() for cost in methods],
        "limits": list(limits(loaded.model.config)),
    }
