"""Tables of names: canonical modules and those of a checkpoint, with the kinds of their tensors."""

from __future__ import annotations

from collections.abc import Mapping


def tensors(modules: Mapping[str, str]) -> dict[str, str]:
    """Canonical name → stored name of the weight of every module and of its bias.

    Several canonical names with one stored name are parts of it, its rows in the table's order.
    """
    weights = {ours: f"{theirs}.weight" for ours, theirs in modules.items()}
    biases = {
        f"{ours}.bias": f"{theirs}.bias" for ours, theirs in modules.items() if ours != "embedding"
    }
    return weights | biases


def layers(prefix: str, modules: Mapping[str, str]) -> dict[str, str]:
    """The same modules in every layer; a stored layer is `prefix`, with {i} for its number."""
    return {f"layers.{{i}}.{ours}": f"{prefix}.{theirs}" for ours, theirs in modules.items()}


def qkv(module: str) -> dict[str, str]:
    """One module for q, k and v."""
    return {"wq": module, "wk": module, "wv": module}
