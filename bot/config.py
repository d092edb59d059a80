"""Where settings come from, which of them wins, and how each value tells its origin.

Nearest wish wins:

    /set in this shell > flag > SPARSECHAT_* variable > loaded session > config.toml
        > the checkpoint's generation_config > built-in

design.md puts the session below flags and variables, and that holds for values that came out of a
file with /load: a flag given today outranks a value saved last week. What is typed with /set in the
running shell is the most recent wish of all; if a start flag beat it, /set would do nothing and
say nothing.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from bot.settings import Settings, Value, nearest, parse, rules, setting_name

Layer = Literal["hand", "flag", "variable", "session", "file", "checkpoint"]
LAYERS: tuple[Layer, ...] = ("hand", "flag", "variable", "session", "file", "checkpoint")
PREFIX = "SPARSECHAT_"
_FOREIGN_VARIABLES = {"SPARSECHAT_HOME"}


@dataclass
class Config:
    """The layers, each a mapping of setting names to checked values."""

    layers: dict[Layer, dict[str, Value]] = field(
        default_factory=lambda: {layer: {} for layer in LAYERS}
    )

    def settings(self, overrides: Mapping[str, Value] | None = None) -> Settings:
        """The values that hold now; `overrides` are for one turn and beat everything."""
        values: dict[str, Value] = {}
        for layer in reversed(LAYERS):
            values |= self.layers[layer]
        values |= overrides or {}
        return Settings(**values)  # type: ignore[arg-type]

    def origin(self, name: str) -> str:
        """Who decided the value of `name`: "/set", "--top-k", "config.toml", …"""
        layer = next((layer for layer in LAYERS if name in self.layers[layer]), None)
        spelled = {
            "hand": "/set",
            "flag": f"--{name.replace('_', '-')}",
            "variable": PREFIX + name.upper(),
            "session": "loaded session",
            "file": "config.toml",
            "checkpoint": "the model",
        }
        return spelled[layer] if layer else "built-in"

    def set_by_hand(self, changes: Mapping[str, Value], unset: set[str] | None = None) -> None:
        """Take over checked values; names in `unset` fall back to flag, variable, file or model."""
        self.layers["hand"] |= changes
        for name in unset or ():
            self.layers["hand"].pop(name, None)
            self.layers["session"].pop(name, None)

    def session_values(self) -> dict[str, Value]:
        """What belongs to the conversation and is saved with it."""
        return self.layers["session"] | self.layers["hand"]


def read_config(flags: Mapping[str, Value]) -> Config:
    """Flags (checked by the parser), environment and config.toml; ValueError on a bad one."""
    config = Config()
    config.layers["flag"] = dict(flags)
    config.layers["variable"] = _from_environment(os.environ)
    config.layers["file"] = _from_file(config_path())
    return config


def config_path() -> Path:
    """config.toml in the configuration folder."""
    from data import paths

    return paths.config_dir() / "config.toml"


def checked(values: Mapping[str, object], source: str) -> dict[str, Value]:
    """Values of a file under their setting names; ValueError beginning with `source`."""
    result: dict[str, Value] = {}
    for key, value in values.items():
        try:
            name = setting_name(key)
            result[name] = parse(name, value)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from None
    return result


def mistyped_variables(environment: Mapping[str, str]) -> list[str]:
    """One line for every SPARSECHAT_ variable that is nearly, but not quite, a setting.

    Others are left alone: they may belong to another version or another program.
    """
    lines = []
    for key in sorted(environment):
        word = key.removeprefix(PREFIX).lower()
        if key.startswith(PREFIX) and key not in _FOREIGN_VARIABLES and word not in rules():
            if guess := nearest(word, list(rules())):
                meant = guess.split("'")[1]
                lines.append(f"{key} is not a setting; did you mean {PREFIX}{meant.upper()}?")
    return lines


def _from_environment(environment: Mapping[str, str]) -> dict[str, Value]:
    """An empty variable counts as not set, as everywhere in Unix."""
    result: dict[str, Value] = {}
    for name in rules():
        variable = PREFIX + name.upper()
        if text := environment.get(variable):
            try:
                result[name] = parse(name, text)
            except ValueError as error:
                raise ValueError(f"{variable}: {error}") from None
    return result


def _from_file(path: Path) -> dict[str, Value]:
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text; correct or delete it") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    try:
        table = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not TOML: {error}; correct or delete it") from None
    return checked(table, str(path))
