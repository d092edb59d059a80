"""Names of runs: one that is free, and the one that a person means."""

from __future__ import annotations

import re
from pathlib import Path

from bot.settings import nearest
from data.mixture import parse_mixture
from data.paths import data_dir, models_dir
from engine.training.run import Run, runs_dir

_UNFIT = re.compile(r"[^A-Za-z0-9._-]+")
_SUFFIXES = re.compile(r"(\.(jsonl|json|txt|gz|zst))+$", re.IGNORECASE)


def free_name(data: str, method: str) -> str:
    """`oig-lora` for oig.jsonl, `oig-lora-2` when that is taken. FileNotFoundError without data."""
    first = Path(parse_mixture(data)[0].path).expanduser().absolute().name
    stem = _UNFIT.sub("-", _SUFFIXES.sub("", first)).strip("-._")[:60]
    name = f"{stem or 'rows'}-{method}"
    number, free = 1, name
    while is_taken(free):
        number += 1
        free = f"{name}-{number}"
    return free


def is_taken(name: str) -> bool:
    """Whether a run, an adapter or a model has that name."""
    folders = (runs_dir() / name, data_dir() / "adapters" / name, models_dir() / name)
    return any(folder.exists() for folder in folders)


def run_names() -> list[str]:
    """Of all runs, the one that was written to last coming first."""
    try:
        files = list(runs_dir().glob("*/settings.json"))
    except OSError:
        return []
    return [path.parent.name for path in sorted(files, key=_touched, reverse=True)]


def find_run(word: str) -> Run:
    """The run of that name or in that folder; FileNotFoundError with the nearest names."""
    path = Path(word).expanduser()
    is_name = Path(word).name == word and word not in (".", "..")
    for folder in [runs_dir() / word] * is_name + [path.absolute()]:
        if (folder / "settings.json").is_file():
            return Run(folder)
    known = run_names()
    there = (
        f"; there are {', '.join(known[:10])}" if known else "; `sparsechat train DATA` makes one"
    )
    raise FileNotFoundError(f"there is no training run {word!r}{nearest(word, known) or there}")


def _touched(settings: Path) -> float:
    """When something was written to the run."""
    files = (settings, settings.with_name("metrics.jsonl"), settings.with_name("log"))
    return max(path.stat().st_mtime for path in files if path.exists())
