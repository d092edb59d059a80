"""Formats of the cache: how keys and values lie in it, and attention over them.

A format is one file, found by its name, which does not begin with an underscore. It offers
    NUMBER       dtype of a number
    SCALED       1 when each key and each value has a float32 scale, else 0
    attend       compiled kernel, see ATTEND in engine/kernels/attention.py
    store_key    compiled kernels, see STORE there
    store_value
_listed_<name>.py beside it offers the same for blocks in a list, which only sparse attention needs:
    attend       compiled kernel, see LISTED in engine/kernels/listed.py
    measure      compiled kernel, see RANGE in engine/kernels/ranges.py
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.weights import Weights

KV_FORMATS = frozenset(m.name for m in iter_modules(__path__) if not m.name.startswith("_"))
DEFAULT = "f16"


def kv_format_for(weights: Weights) -> str:
    """f16, but f32 beside weights in float32 alone: there somebody wants all the digits."""
    formats = {weight.format for weight in weights.matrices.values()}
    return "f32" if formats == {"f32"} else DEFAULT


def kv_format(name: str) -> ModuleType:
    """engine/kv_formats/<name>.py."""
    if name not in KV_FORMATS:
        raise ValueError(
            f"unknown format of the cache {name!r}; this build has {', '.join(sorted(KV_FORMATS))}"
        )
    return import_module(f"{__name__}.{name}")


def listed_kernels(name: str) -> ModuleType:
    """engine/kv_formats/_listed_<name>.py; compiles it when this machine has not done so yet."""
    kv_format(name)
    return import_module(f"{__name__}._listed_{name}")
