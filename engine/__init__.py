"""Decodes: token ids in, tokens and text out, on a CPU.

Names are imported when they are first used, because Numba takes a third of a second.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.adapters import Adapter, read_adapter, write_adapter
    from engine.cancel import Cancel
    from engine.generate import Generation, Step, Usage, stream
    from engine.model import Model, load
    from engine.sampling import SamplingParams
    from engine.saved_cache import SavedCaches
    from engine.sparsity.auto import Trial
    from engine.sparsity.cost import calibrate, compare_with_dense, level_costs
    from engine.sparsity.knob import NotCalibratedError
    from engine.sparsity.level_cost import LevelCost
    from engine.sparsity.methods import measure_methods, method_costs

_HOME = {
    **dict.fromkeys(("Adapter", "read_adapter", "write_adapter"), "engine.adapters"),
    "Cancel": "engine.cancel",
    "Generation": "engine.generate",
    "Model": "engine.model",
    "SamplingParams": "engine.sampling",
    "SavedCaches": "engine.saved_cache",
    "Step": "engine.generate",
    "Trial": "engine.sparsity.auto",
    "Usage": "engine.generate",
    "load": "engine.model",
    "stream": "engine.generate",
    **dict.fromkeys(("calibrate", "compare_with_dense", "level_costs"), "engine.sparsity.cost"),
    "LevelCost": "engine.sparsity.level_cost",
    **dict.fromkeys(("measure_methods", "method_costs"), "engine.sparsity.methods"),
    "NotCalibratedError": "engine.sparsity.knob",
}

__all__ = [
    "Adapter",
    "Cancel",
    "Generation",
    "LevelCost",
    "Model",
    "NotCalibratedError",
    "SamplingParams",
    "SavedCaches",
    "Step",
    "Trial",
    "Usage",
    "calibrate",
    "compare_with_dense",
    "level_costs",
    "load",
    "measure_methods",
    "method_costs",
    "read_adapter",
    "stream",
    "write_adapter",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
