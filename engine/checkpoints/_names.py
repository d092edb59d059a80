"""Canonical tensor names (engine/config.py) and those that a container stores."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

_LAYER = re.compile(r"\.(0|[1-9][0-9]{0,5})\.")


def canonical_names(patterns: Mapping[str, str], stored: Iterable[str]) -> dict[str, str]:
    """Canonical name → stored name, for the stored names that `patterns` knows.

    patterns  {"layers.{i}.wq": "blk.{i}.attn_q.weight", …}; several canonical names may share one
    """
    inverse: dict[str, list[str]] = {}
    for ours, theirs in patterns.items():
        inverse.setdefault(theirs, []).append(ours)
    found = {}
    for name in stored:
        layer = _LAYER.search(name)
        pattern = _LAYER.sub(".{i}.", name, count=1)
        for ours in inverse.get(pattern, ()):
            found[ours.replace("{i}", layer[1]) if layer else ours] = name
    return found


def by_stored(patterns: Mapping[str, str], canonical: Iterable[str]) -> dict[str, list[str]]:
    """Stored name → the canonical names, in order, of what lies in it."""
    groups: dict[str, list[str]] = {}
    for name in canonical:
        layer = name.split(".")[1] if name.startswith("layers.") else ""
        stored = patterns[pattern_of(name)].replace("{i}", layer)
        groups.setdefault(stored, []).append(name)
    return groups


def pattern_of(canonical_name: str) -> str:
    """ "layers.{i}.wq" of "layers.7.wq"."""
    return _LAYER.sub(".{i}.", canonical_name, count=1)


def sharing(patterns: Mapping[str, str], canonical_name: str) -> list[str]:
    """The canonical names, in order, of what lies in the same stored tensor; as a rule one."""
    pattern = pattern_of(canonical_name)
    number = canonical_name.split(".")[1] if pattern != canonical_name else ""
    theirs = patterns.get(pattern)
    found = [ours for ours, stored in patterns.items() if stored == theirs]
    return [ours.replace("{i}", number) for ours in found]


def prefixed(patterns: Mapping[str, str], stored: Collection[str]) -> Mapping[str, str]:
    """The patterns as this checkpoint has them: it may have been saved without the first word of
    its tensors' names, or as a part of something larger, with further words before it."""
    if patterns["embedding"] in stored:
        return patterns
    first, bare = patterns["embedding"].split(".", 1)
    for name in stored:
        if name == bare or name.endswith(f".{bare}"):
            words = name.removesuffix(bare)
            return {
                ours: words + theirs.removeprefix(f"{first}.") if theirs.startswith(f"{first}.")
                else theirs
                for ours, theirs in patterns.items()
            }  # fmt: skip
    return patterns


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
