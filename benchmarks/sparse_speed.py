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

N_TOKENS = 96
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
    """Tokens a second of what follows the text's prompt, from the second token on."""
    setting.use(model)
    params = engine.SamplingParams(
        temperature=0 if n_best == 1 else 0.6,
        top_k=n_best,
        max_tokens=N_TOKENS,
        seed=1,
        lookup=False,  # which has a benchmark of its own
    )
    before, model.stop_ids = model.stop_ids, frozenset()
    try:
        generation = engine.stream(model, text.token_ids[: text.start], params)
        next(generation)
        with machine.Background() as background:
            started = time.perf_counter()
            n = sum(step.token_id >= 0 for step in generation)
            seconds = time.perf_counter() - started
    finally:
        model.stop_ids = before
    return n / seconds, background.load


def row_of(case: str, threads: int, found: dict[str, Any]) -> report.Row:
    """A setting beside off."""
    row = report.Row(case, threads, "decode", "tok/s", "off")
    for ours, off in zip(found["ours"], found["off"], strict=True):
        row.add(ours, off)
    row.loads = [machine.Load(*load) for load in found["loads"]]
    return row
