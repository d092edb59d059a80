"""What the actions print: one JSON object for scripts, lines for people."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bot import render

if TYPE_CHECKING:
    from retrieval.reports import Info, Report


def json_out(value: Any) -> None:
    """One object on stdout."""
    text = json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False, default=_plain)
    render.out(text)


def report_record(report: Report) -> dict[str, Any]:
    """What was added, as JSON has it."""
    return {
        **{key: value for key, value in asdict(report).items() if key != "skipped"},
        "skipped": [{"path": str(path), "reason": reason} for path, reason in report.skipped],
    }


def info_record(info: Info) -> dict[str, Any]:
    """What a base is, as JSON has it."""
    sources = [{"path": path, "documents": n} for path, n in info.sources]
    return {**asdict(info), "folder": str(info.folder), "sources": sources}


def table(rows: dict[str, str]) -> None:
    """`name  value` lines, aligned."""
    width = max(map(len, rows))
    for name, value in rows.items():
        render.out(f"{name:<{width}}  {value}")


def _plain(value: Any) -> Any:
    """Paths and NumPy's numbers."""
    if isinstance(value, Path):
        return str(value)
    item = getattr(value, "item", None)
    if item is None:
        raise TypeError(f"{type(value).__name__} is no JSON")
    return item()
