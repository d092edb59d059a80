"""Conversations on disk: one JSON file per name, whole or absent, read without trust."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from bot import citations
from bot.config import checked
from bot.prompt import Exchange, View
from bot.settings import Value
from bot.terminal import well_formed

VERSION = 1
MAX_BYTES = 64 << 20  # far above any conversation; a larger file is something else
_REASONS = {"stop", "stop_string", "length", "context", "cancelled"}
_RESERVED = {"con", "prn", "aux", "nul"} | {f"{p}{n}" for p in ("com", "lpt") for n in range(1, 10)}


@dataclass(frozen=True, slots=True)
class Session:
    """A conversation with the values that were set for it and the model that it was held with.

    `settings` holds what was set by hand, the system prompt among it; `model` is
    {"name", "fingerprint", "weight_format"}, empty when no model was loaded. `view` is where the
    model's view of a long conversation began, so that it can begin there again.
    """

    exchanges: list[Exchange]
    settings: dict[str, Value]
    model: Mapping[str, str]
    view: View = field(default_factory=View)


def folder() -> Path:
    """Where sessions lie."""
    from data import paths

    return paths.data_dir() / "sessions"


def names() -> list[str]:
    """The saved names, alphabetically."""
    try:
        return sorted(path.stem for path in folder().glob("*.json"))
    except OSError:
        return []


def new_name() -> str:
    """A name nobody gave: the time."""
    return f"{datetime.now():%Y-%m-%d-%H%M%S}"


def path_of(name: str) -> Path:
    """The file of `name`; ValueError when the name could leave the folder or trouble a system."""
    allowed = all(char.isalnum() or char in "-_." for char in name)
    if not allowed or not 0 < len(name.encode()) <= 100 or name.startswith("."):
        raise ValueError(
            f"{name!r} cannot name a session: letters, digits, '-', '_' and '.', not '.' first, "
            "at most 100 bytes"
        )
    if name.split(".")[0].lower() in _RESERVED:
        raise ValueError(f"{name!r} cannot name a session: Windows keeps that name for a device")
    return folder() / f"{name}.json"


def save(name: str, session: Session) -> Path:
    """Write the session and return its file; OSError in one line when that cannot be done."""
    from data import files

    path = path_of(name)
    files.private_folder(path.parent)
    settings = dict(session.settings)
    record = {
        "version": VERSION,
        "saved": datetime.now().astimezone().isoformat(timespec="seconds"),
        "model": dict(session.model),
        "system": settings.pop("system", None),
        "settings": settings,
        "messages": [
            message
            for exchange in session.exchanges
            for message in (
                {"role": "user", "content": exchange.question},
                _answer_record(exchange),
            )
        ],
    }
    if session.view.n_dropped:
        record["view"] = {"n_dropped": session.view.n_dropped, "key": session.view.key}
    files.write_json(path, record)
    return path


def load(name: str) -> Session:
    """Read a session; FileNotFoundError or ValueError in one line, naming the file."""
    path = path_of(name)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"{path} is larger than {MAX_BYTES:,} bytes; it is no saved session")
        record = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise FileNotFoundError(_missing(name)) from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        raise ValueError(f"{path} is not JSON; it is no saved session, or was damaged") from None
    try:
        return _from_record(record)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no saved session: {_what(error)}") from None


def _answer_record(exchange: Exchange) -> dict[str, Any]:
    record: dict[str, Any] = {
        "role": "assistant",
        "content": exchange.answer,
        "finish_reason": exchange.finish_reason,
    }
    if exchange.evidence is not None:
        record["evidence"] = citations.to_record(exchange.evidence)
    return record


def _from_record(record: Any) -> Session:
    if record["version"] != VERSION:
        raise ValueError(f"version {record['version']!r}, this build reads {VERSION}")
    settings = checked(record["settings"], "settings")
    if record["system"] is not None:
        settings["system"] = _content(record["system"])
    model = {key: _content(value) for key, value in record["model"].items()}
    exchanges = _exchanges(record["messages"])
    return Session(exchanges, settings, model, _view(record.get("view"), len(exchanges)))


def _view(value: Any, n_turns: int) -> View:
    if value is None:
        return View()
    n_dropped = value["n_dropped"]
    if type(n_dropped) is not int or not 0 <= n_dropped < n_turns:
        raise ValueError(f"its view begins after turn {n_dropped!r} of {n_turns}")
    return View(n_dropped, _content(value["key"]))


def _exchanges(messages: Any) -> list[Exchange]:
    if not isinstance(messages, list) or len(messages) % 2:
        raise ValueError("messages are not pairs of question and answer")
    exchanges = []
    for asked, answered in zip(messages[::2], messages[1::2], strict=True):
        if (asked["role"], answered["role"]) != ("user", "assistant"):
            raise ValueError("messages do not alternate between user and assistant")
        reason = answered.get("finish_reason", "stop")
        if reason not in _REASONS:
            raise ValueError(f"finish_reason {reason!r}")
        found = answered.get("evidence")
        evidence = None if found is None else citations.from_record(found)
        exchanges.append(
            Exchange(_content(asked["content"]), _content(answered["content"]), reason, evidence)
        )
    return exchanges


def _content(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"text expected, found {type(value).__name__}")
    return well_formed(value)


def _what(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)


def _missing(name: str) -> str:
    from bot.settings import nearest

    known = names()
    hint = nearest(name, known) or ("; /load and Tab shows the names" if known else "")
    return f"there is no saved session {name!r}{hint}"
