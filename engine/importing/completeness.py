"""Whether every tensor is there, exactly once and with its shape."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from engine.checkpoints._names import pattern_of
from engine.checkpoints._safetensors import N_BYTES
from engine.importing.expected import Expected
from engine.importing.sources import Place

_MOST_NAMES = 6  # in a message
_LAYER = re.compile(r"\.(0|[1-9][0-9]{0,5})\.")


class Chosen(NamedTuple):
    """places: what is to be written. left_out: names of what the decoder does not have."""

    places: tuple[Place, ...]
    left_out: tuple[str, ...]


def complete(
    places: Sequence[Place],
    want: Expected,
    takes_all: bool,
    repeats_embedding: Callable[[Place, Place], bool],
) -> Chosen:
    """ValueError that names what is missing, twice, of a wrong shape or unknown.

    takes_all          whether everything has to be a weight of this model, or a buffer; else what
                       no model of this architecture has is left out
    repeats_embedding  whether two tensors hold the same numbers: a tied head is written once
    """
    by_name: dict[str, list[Place]] = {}
    unknown: list[str] = []
    left_out: list[str] = []
    for place in places:
        name = place.name
        if name is not None and (name in want.shapes or name == want.tied):
            by_name.setdefault(name, []).append(place)
        elif name is None or not want.is_buffer(name):
            strange = takes_all or (name is not None and want.is_known(name))
            (unknown if strange else left_out).append(f"{name or place.key}")
    shapes = dict(want.shapes)
    if want.tied is not None:
        shapes[want.tied] = want.shapes[want.embedding]
    problems = [
        _missing([name for name in want.shapes if name not in by_name], want),
        _listed("twice", [name for name, found in by_name.items() if len(found) > 1]),
        _listed("of a wrong shape", _misshapen(by_name, shapes)),
        _listed("no floats", [f"{p.name} ({p.kind})" for p in _first(by_name)
                              if p.kind not in N_BYTES]),
        _listed("not of this model", unknown),
    ]  # fmt: skip
    if found := [problem for problem in problems if problem]:
        raise ValueError(f"{'; '.join(found)}; nothing was written")
    if want.tied in by_name:
        assert want.tied is not None
        if repeats_embedding(by_name[want.tied][0], by_name[want.embedding][0]):
            del by_name[want.tied]
    kept = {id(found[0]) for found in by_name.values()}
    return Chosen(tuple(p for p in places if id(p) in kept), tuple(left_out))


def _first(by_name: dict[str, list[Place]]) -> Iterable[Place]:
    return (found[0] for found in by_name.values())


def _misshapen(by_name: dict[str, list[Place]], shapes: dict[str, tuple[int, ...]]) -> list[str]:
    return [
        f"{name} has {place.shape} instead of {shapes[name]} ({place.path.name})"
        for name, found in by_name.items()
        for place in found
        if place.shape != shapes[name]
    ]


def _missing(names: Sequence[str], want: Expected) -> str:
    """Whole layers by their numbers."""
    size = Counter(_number(name) for name in want.shapes)
    gone = Counter(_number(name) for name in names)
    whole = sorted(n for n in gone if n >= 0 and gone[n] == size[n])
    single = [name for name in names if _number(name) not in whole]
    if whole:
        single.insert(0, f"all of layers {_runs(whole)} (of {want.config.n_layers})")
    return _listed("missing", single)


def _number(name: str) -> int:
    """Of its layer; -1 outside."""
    match = _LAYER.search(name) if pattern_of(name) != name else None
    return int(match[1]) if match else -1


def _runs(numbers: Sequence[int]) -> str:
    """ "0, 4-7" """
    runs: list[list[int]] = []
    for n in numbers:
        if runs and runs[-1][1] == n - 1:
            runs[-1][1] = n
        else:
            runs.append([n, n])
    return ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in runs)


def _listed(what: str, names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    shown = ", ".join(name[:160] for name in names[:_MOST_NAMES])
    return f"{what}: {shown}{more}" if names else ""
