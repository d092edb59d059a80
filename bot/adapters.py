"""Adapters as the user meets them: by the names of folders below the data folder, or by paths."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bot.failures import EXPECTED
from bot.settings import Settings, nearest

if TYPE_CHECKING:
    from engine import Adapter, Model

OFF = "off"
MARK = "adapter_config.json"  # a folder with this file is an adapter


class AdapterNotFoundError(FileNotFoundError):
    """No folder of that name is an adapter; the message says which names there are."""


def folder() -> Path:
    """Where adapters with names lie, as training leaves them."""
    from data import paths

    return paths.data_dir() / "adapters"


def names() -> list[str]:
    """Of the adapters there, alphabetically."""
    try:
        return sorted(path.parent.name for path in folder().glob(f"*/{MARK}"))
    except OSError:
        return []


def wanted_adapter(settings: Settings) -> str | None:
    """The adapter that the settings name; None for none and "off"."""
    return None if settings.adapter in (None, "", OFF) else settings.adapter


def find(word: str) -> Path:
    """The folder of an adapter; AdapterNotFoundError with the nearest names where there is none."""
    is_name = Path(word).name == word and word not in (".", "..")
    for path in [folder() / word] * is_name + [Path(word).expanduser()]:
        if (path / MARK).is_file():
            return path.absolute()
    known = names()
    if not is_name:
        raise AdapterNotFoundError(f"{word} is no adapter: no {MARK} is there")
    listed = f"there are {', '.join(known[:10])}" if known else f"{folder()} has none"
    raise AdapterNotFoundError(
        f"there is no adapter {word!r}{nearest(word, known) or f'; {listed}'}"
    )


def use_adapter(model: Model, wanted: str | None) -> str:
    """Let the model have the adapter, or none; why it cannot have it, or "".

    Runs where the model computes. An adapter that cannot be had leaves the model without one.
    """
    try:
        model.set_adapter(None if wanted is None else find(wanted))
    except EXPECTED as error:
        model.set_adapter(None)
        return str(error)
    return ""


def line_of(adapter: Adapter) -> str:
    """An adapter in one line: "polite: rank 16, 4,884,480 weights, trained on smollm2-135m"."""
    return f"{adapter.name}: {facts_of(adapter)}"


def facts_of(adapter: Adapter) -> str:
    """The same without its name."""
    on = f", trained on {adapter.base_name}" if adapter.base_name else ""
    return f"rank {adapter.rank}, {adapter.n_weights:,} weights{on}"


def to_record(model: Model) -> dict[str, Any] | None:
    """The adapter in use, for JSON."""
    adapter = model.adapter
    if adapter is None:
        return None
    return {
        "name": adapter.name,
        "path": None if adapter.path is None else str(adapter.path),
        "rank": adapter.rank,
        "sha256": model.adapter_digest,
    }


def rows() -> list[dict[str, Any]]:
    """What is known of each adapter with a name without reading its weights."""
    return [_row(folder() / name) for name in names()]


def lines(found: Iterable[dict[str, Any]]) -> list[str]:
    """The rows for people."""
    from data import files

    found = list(found)
    width = max((len(row["name"]) for row in found), default=0)
    shown = []
    for row in found:
        on = f"for {row['base']}" if row["base"] else ""
        facts = row["problem"] or f"rank {row['rank']}  {files.megabytes(row['size']):>9}  {on}"
        shown.append(f"  {row['name']:<{width}}  {facts}".rstrip())
    return shown


def _row(path: Path) -> dict[str, Any]:
    from engine.adapters import OURS
    from engine.peft_config import read_config

    size = sum(file.stat().st_size for file in path.iterdir() if file.is_file())
    row: dict[str, Any] = {"name": path.name, "path": str(path), "size": size}
    try:
        config = read_config(path)
    except (OSError, ValueError) as error:
        return {**row, "rank": None, "base": None, "problem": str(error)}
    try:
        base = json.loads((path / OURS).read_text(encoding="utf-8"))["base"]["name"]
    except (OSError, ValueError, KeyError, TypeError):
        base = config.base
    return {**row, "rank": config.rank, "base": base or None, "problem": None}
