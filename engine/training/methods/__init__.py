"""What a run trains: one file a method, found by its name.

A method module offers `Method`, a frozen dataclass of its settings with
    parts(config) -> Parts    which tensors are trained, and which matrices get an adapter
"""

from __future__ import annotations

from dataclasses import fields
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, NamedTuple, Protocol

from engine.config import DecoderConfig

METHODS = frozenset(module.name for module in iter_modules(__path__))


class Parts(NamedTuple):
    """Canonical names of engine.weights; everything else is frozen."""

    whole: frozenset[str] = frozenset()  # tensors that are trained themselves
    adapted: frozenset[str] = frozenset()  # matrices that an adapter is trained beside
    rank: int = 0  # of the adapters
    scale: float = 0.0  # of their outputs: alpha / rank
    dropout: float = 0.0  # of their inputs


class Method(Protocol):
    """The settings of one method."""

    def parts(self, config: DecoderConfig) -> Parts:
        """ValueError where the settings do not fit the model."""


def method(name: str, **settings: Any) -> Method:
    """engine/training/methods/<name>.py with those of the settings that it has."""
    if name not in METHODS:
        raise ValueError(f"unknown method {name!r}; this build has {', '.join(sorted(METHODS))}")
    cls = import_module(f"{__name__}.{name}").Method
    known = {field.name for field in fields(cls)}
    made: Method = cls(**{k: v for k, v in settings.items() if k in known and v is not None})
    return made
