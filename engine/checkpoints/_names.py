"""Canonical tensor names (engine/config.py) and those that a container stores."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

_LAYER = re.compile(r"\.(0|[1-9][0-9]{0,5})\.")


def canonical_names(patterns: Mapping[str, str], stored: Iterable[str]) -> dict[str, str]:
    """Canonical name → stored name, for the stored names that `patterns` knows.

    patterns  {"layers.{i}.wq": "blk.{i}.attn_q.weight", …}
    """
    inverse = {theirs: ours for ours, theirs in patterns.items()}
    found = {}
    for name in stored:
        layer = _LAYER.search(name)
        pattern = _LAYER.sub(".{i}.", name, count=1)
        if pattern in inverse:
            ours = inverse[pattern]
            found[ours.replace("{i}", layer[1]) if layer else ours] = name
    return found


def default_chat_template(value: object) -> str | None:
    """tokenizer_config's chat_template: a string, or a list of {"name", "template"}."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        for entry in value:
            if isinstance(entry, dict) and entry.get("name") == "default":
                template = entry.get("template")
                return template if isinstance(template, str) else None
    return None
