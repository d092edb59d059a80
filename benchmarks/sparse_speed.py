"""Decoding speed of each setting, each beside the dense engine in the same seconds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import engine
from benchmarks import machine, report
from benchmarks.kept import Kept
from benchmarks.sparse_settings import CALLS, Setting, use_off
from benchmarks.sparse_texts import Text

N_TOKENS = 64
_WARM = 8
OFF = Setting("off", use_off)


def measure(
    model: engine.Model,
    settings: Sequence[Setting],
    text: Text,
    rounds: int,
    spare: int,
    kept: Kept,
) -> list[report.Row]:
    """Rows of all settings and calls, for the model's number of threads."""
    rows = []
    for call, n_best in CALLS.items():
        for setting in settings:
            name = f"speed {setting.name} {call} {model.threads}"
            found = kept.get(name, _rounds, model, setting, text, n_best, rounds, spare)
            rows.append(row_of(f"{setting.name}, {call}", model.threads, found))
    return rows


def _rounds(
    model: engine.Model, setting: Setting, text: Text, n_best: int, rounds: int, spare: int
) -> dict[str, Any]:
    """Tokens a second of both sides; a round that others disturbed is made again."""
    found: dict[str, Any] = {"ours": [], "off": [], "loads": []}
    for side in (setting, OFF):
        decode(model, side, text, n_best)
    while len(found["ours"]) < rounds:
        sides = [setting, OFF] if len(found["ours"]) % 2 == 0 else [OFF, setting]
        took = {side.name: decode(model, side, text, n_best) for side in sides}
        loads = [load for _, load in took.values()]
        if spare and max(load.foreign_percent or 0 for load in loads) > machine.DISTURBED_PERCENT:
            spare -= 1
            continue
        found["ours"].append(took[setting.name][0])
        found["off"].append(took[OFF.name][0])
        found["loads"] += loads
    return found


def decode(
    model: engine.Model, setting: Setting, text: Text, n_best: int
) -> tuple[float, machine.Load]:
    """Tokens a second of the text's tokens from `start` on, one at a time, after some untimed."""
    setting.use(model)
    decoder, cache = model.decoder, model.decoder.new_cache()
    decoder.extend(cache, text.token_ids[: text.start])
    timed = text.token_ids[text.start :][: _WARM + N_TOKENS]
    for token_id in timed[:_WARM]:
        decoder.extend(cache, [token_id], n_best=n_best)
    with machine.Background() as background:
        started = time.perf_counter()
        for token_id in timed[_WARM:]:
            decoder.extend(cache, [token_id], n_best=n_best)
        seconds = time.perf_counter() - started
    return len(timed[_WARM:]) / seconds, background.load


def row_of(case: str, threads: int, found: dict[str, Any]) -> report.Row:
    """A setting beside off."""
    row = report.Row(case, threads, "decode", "tok/s", "off")
    for ours, off in zip(found["ours"], found["off"], strict=True):
        row.add(ours, off)
    row.loads = [machine.Load(*load) for load in found["loads"]]
    return row
