"""Quality against speed: a point for each level and method of a result of benchmarks/sparsity.py.

    python -m benchmarks.sparsity_picture [RESULT.json] [PICTURE.png]

Across: how many times faster than the dense engine. Up: exp(KL) - 1 on chat answers, in percent.
The picture needs matplotlib, which nothing else here does, and nothing of this project's packages:
any Python that has it draws one. Without it the same is printed as text.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

RESULT = Path(__file__).parent / "results" / "sparsity.json"
_CALL, _KIND = "top 40", "chat"
_WIDTH, _HEIGHT = 60, 14
_LEAST = 0.01  # percent: what is below it is drawn there, on a scale of logarithms


class Point(NamedTuple):
    """One setting; losses in percent."""

    name: str
    speed: float  # 1 = dense
    loss: float
    error: float  # the standard error of the loss


def points(rows: Sequence[Mapping[str, Any]], threads: int | None = None) -> list[Point]:
    """Dense, and all settings with both figures, of calls for the 40 likeliest tokens."""
    speeds = {row["case"]: row for row in rows if row["metric"] == "decode"
              and row["threads"] == (threads or max(r["threads"] for r in rows))}  # fmt: skip
    found = [Point("off", 1.0, 0.0, 0.0)]
    for row in rows:
        setting, _, rest = row["case"].partition(", ")
        if row["metric"] != "exp(KL) - 1" or rest != f"{_CALL}, {_KIND}":
            continue
        if speed := speeds.get(f"{setting}, {_CALL}"):
            error = row.get("standard_error") or 0.0
            found.append(Point(setting, speed["ratio"], 100 * row["ours"], 100 * error))
    return found


def in_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """A picture in characters with the points' figures under it; "" without points."""
    found = points(rows) if rows else []
    if len(found) < 2:
        return ""
    left = min(point.speed for point in found) - 0.05
    right = max(point.speed for point in found) + 0.05
    heights = [math.log10(max(point.loss, _LEAST)) for point in found]
    low, high = math.log10(_LEAST), max(0.0, *heights) + 0.1
    grid = [[" "] * _WIDTH for _ in range(_HEIGHT)]
    for i, (point, height) in enumerate(zip(found, heights, strict=True)):
        x = round((point.speed - left) / (right - left) * (_WIDTH - 1))
        y = round((high - height) / (high - low) * (_HEIGHT - 1))
        grid[y][x] = chr(ord("a") + i)
    lines = [f"exp(KL) - 1 on {_KIND}, percent, logarithmic, against speed ({_CALL}; 1 = dense)"]
    for y, cells in enumerate(grid):
        percent = 10 ** (high - y / (_HEIGHT - 1) * (high - low))
        lines.append(f"{percent:8.2g} |{''.join(cells)}".rstrip())
    lines.append(" " * 9 + "+" + "-" * _WIDTH)
    lines.append(f"{left:10.2f}{right:{_WIDTH}.2f}")
    for i, point in enumerate(found):
        loss = f"{point.loss:.3g} ± {point.error:.2g} %"
        lines.append(f"  {chr(ord('a') + i)} {point.name}: {point.speed:.2f}x, {loss}")
    return "\n".join(lines) + "\n"


def draw(found: Sequence[Point], target: Path) -> None:
    """A PNG. ImportError without matplotlib."""
    import matplotlib  # type: ignore[import-not-found,unused-ignore]

    matplotlib.use("Agg")
    from matplotlib import pyplot  # type: ignore[import-not-found,unused-ignore]

    figure, axes = pyplot.subplots(figsize=(6.4, 4), layout="constrained")
    for percent, level in ((2, "balanced: at most 2 %"), (5, "fast: at most 5 %")):
        axes.axhline(percent, color="0.7", linewidth=0.8, linestyle="--")
        axes.annotate(level, (1, percent), (-4, 2), xycoords=("axes fraction", "data"),
                      textcoords="offset points", color="0.5", fontsize=8, ha="right")  # fmt: skip
    for point, marker in zip(found, "osD^vP*X<>" * len(found), strict=False):
        label = f"{point.name}: {point.speed:.2f}x, {point.loss:.2g} %"
        axes.errorbar(point.speed, point.loss, 1.96 * point.error, fmt=marker, capsize=2,
                      label=label, alpha=0.7, clip_on=False)  # fmt: skip
    axes.legend(loc="center left", fontsize=8)
    axes.set_xlabel("decoding speed against the dense engine")
    axes.set_ylabel(f"exp(KL) - 1 on {_KIND}, percent")
    axes.set_yscale("symlog", linthresh=_LEAST)
    axes.set_ylim(bottom=0)
    axes.margins(x=0.15)
    figure.savefig(target, dpi=110)


def main() -> None:
    """Draw, or print."""
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else RESULT
    target = Path(sys.argv[2]) if len(sys.argv) > 2 else source.with_suffix(".png")
    rows = json.loads(source.read_text("utf-8"))["rows"]
    try:
        draw(points(rows), target)
        print(f"written to {target}")
    except ImportError:
        print(in_text(rows))


if __name__ == "__main__":
    main()
