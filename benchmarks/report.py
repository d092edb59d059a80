"""From samples of two sides to a table for people and one line of JSON for machines."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import machine

RESULTS = Path(__file__).parent / "results"
Number = float | int


@dataclass
class Row:
    """One figure of ours beside a peer's, a sample a round.

    The two sides of a round were measured one right after the other, so a round's ratio is fair
    even when the machine's speed drifts. ratio = how many times better ours is: ours / peer, or
    peer / ours where less is better.
    """

    case: str
    threads: int
    metric: str
    unit: str
    peer_name: str | None = None
    less_is_better: bool = False
    extra: dict[str, Any] = field(default_factory=dict)
    ours: list[float | None] = field(default_factory=list)
    peer: list[float | None] = field(default_factory=list)
    loads: list[machine.Load] = field(default_factory=list)

    def add(
        self, ours: float | None, peer: float | None = None, *loads: machine.Load | None
    ) -> None:
        """One round: a side that gave nothing is None."""
        self.ours.append(ours)
        self.peer.append(peer)
        self.loads.extend(load for load in loads if load is not None)

    def ratios(self) -> list[float]:
        """How many times better ours was in each round that has both sides."""
        found = []
        for ours, peer in zip(self.ours, self.peer, strict=True):
            ratio = _ratio(ours, peer, self.less_is_better)
            if ratio is not None:
                found.append(ratio)
        return found

    def as_json(self) -> dict[str, Any]:
        """The row of the JSON line; what was not measured is null."""
        ours, peer, ratios = _present(self.ours), _present(self.peer), self.ratios()
        values = {
            "ours": _median(ours),
            "peer": _median(peer),
            "peer_name": self.peer_name,
            "ratio": _ratio(_median(ours), _median(peer), self.less_is_better),
            "ratio_low": min(ratios, default=None),
            "ratio_high": max(ratios, default=None),
            "ours_low": min(ours, default=None),
            "ours_high": max(ours, default=None),
            "peer_low": min(peer, default=None),
            "peer_high": max(peer, default=None),
            "rounds": len(self.ours),
            "less_is_better": self.less_is_better,
            "foreign_percent": _median(_present(load.foreign_percent for load in self.loads)),
            "steal_percent": _median(_present(load.steal_percent for load in self.loads)),
        }
        named = {
            "case": self.case,
            "threads": self.threads,
            "metric": self.metric,
            "unit": self.unit,
        }
        return named | {key: _rounded(value) for key, value in (values | self.extra).items()}


def _present(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _median(values: Sequence[float]) -> float | None:
    return median(values) if values else None


def _ratio(ours: float | None, peer: float | None, less_is_better: bool) -> float | None:
    above, below = (peer, ours) if less_is_better else (ours, peer)
    if above is None or not below:
        return None
    return above / below


def _rounded(value: Any) -> Any:
    """Four significant digits: more would only claim more than was measured."""
    if not isinstance(value, float) or isinstance(value, bool):
        return value
    if not math.isfinite(value):
        return None
    return float(f"{value:.4g}")


def document(name: str, about: dict[str, Any], rows: Iterable[Row]) -> dict[str, Any]:
    """The object of the last line; `about` is machine.describe() and whatever goes with it."""
    return {
        "name": name,
        "commit": machine.commit(),
        "machine": about,
        "rows": [row.as_json() for row in rows],
    }


def publish(name: str, about: dict[str, Any], rows: Iterable[Row], *, save: bool = False) -> None:
    """Print the table, then the JSON as the last line; `save` keeps it under results/."""
    result = document(name, about, rows)
    print(card(about, result["commit"]))
    print()
    print(table(result["rows"]))
    limit = machine.DISTURBED_PERCENT
    if any((row["foreign_percent"] or 0) > limit for row in result["rows"]):
        print(f"\nmore than {limit} % foreign CPU: something else ran; measure such rows again")
    if save:
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{name}.json"
        path.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
        print(f"\nwritten to {path}")
    print()
    print(json.dumps(result, allow_nan=False), flush=True)


def card(about: dict[str, Any], commit: str | None) -> str:
    """The machine in a few lines."""
    lines = [
        f"{about.get('cpu')}, {about.get('cores')} cores, Python {about.get('python')}, "
        f"numba {about.get('numba')}, numpy {about.get('numpy')}, commit {commit}"
    ]
    lines += [
        f"reads {b['n_bytes'] / 1e6:,.0f} MB with {_count(b['threads'], 'thread')}: "
        f"{b['gb_s']:.1f} GB/s"
        for b in about.get("read", ())
    ]
    run = about.get("run", {})
    if run.get("quick"):
        lines.append("quick: few rounds, to see that it works; leave --quick out for figures")
    return "\n".join(lines)


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


_HEADINGS = ("case", "threads", "metric", "ours", "peer", "ratio", "foreign CPU", "of the limit")


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Columns for people: medians, and in brackets the range over rounds."""
    lines = [_HEADINGS, *(_cells(row) for row in rows)]
    shown = [i for i in range(len(_HEADINGS)) if any(line[i] for line in lines[1:])]
    widths = {i: max(len(line[i]) for line in lines) for i in shown}
    texts = ["  ".join(line[i].ljust(widths[i]) for i in shown).rstrip() for line in lines]
    return "\n".join([texts[0], "-" * len(texts[0]), *texts[1:]])


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    foreign, share = row.get("foreign_percent"), row.get("limit_share")
    peer = spread(row, "peer")
    return (
        row["case"],
        str(row["threads"]),
        f"{row['metric']}, {row['unit']}" if row["unit"] else row["metric"],
        spread(row, "ours"),
        f"{peer} {row['peer_name']}" if peer else "",
        spread(row, "ratio") and spread(row, "ratio") + "x",
        "" if foreign is None else f"{foreign:.0f} %",
        "" if share is None else f"{100 * share:.0f} %",
    )


def spread(row: dict[str, Any], key: str) -> str:
    """The median, and in brackets the range over rounds; "" for what was not measured."""
    middle, low, high = row[key], row.get(f"{key}_low"), row.get(f"{key}_high")
    if middle is None:
        return ""
    if low is None or high is None or low == high:
        return _number(middle)
    return f"{_number(middle)} ({_number(low)}-{_number(high)})"


def _number(value: Number) -> str:
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    if abs(value) < 0.01:
        return f"{value:.2g}"
    return f"{value:.3g}"
