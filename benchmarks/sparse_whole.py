"""Whole answers at each level, drafts included, beside the dense engine one token at a time.

Levels and drafts by prompt lookup (engine/lookup.py) save different things: a level reads less of
the weights, a draft lets several tokens share one read. What a user gets is both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import engine
from benchmarks import machine, report
from benchmarks.kept import Kept
from benchmarks.sparse_settings import METHODS, Setting, use_off
from benchmarks.sparse_texts import PROMPTS

N_TOKENS = 128
N_PROMPTS = 12
OFF = Setting("off", use_off)
MODES: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0},
    "top 40": {"temperature": 0.6, "top_k": 40, "seed": 3},
}


def measure(
    model: engine.Model, settings: Sequence[Setting], rounds: int, spare: int, kept: Kept
) -> list[report.Row]:
    """A row for each mode and level, and for off with drafts."""
    chosen = [OFF, *(each for each in settings if each.name not in METHODS)]
    n_prompts = min(N_PROMPTS, max(2, rounds))
    rows = []
    for mode in MODES:
        name = f"whole {mode} {model.threads}"
        found = kept.get(name, _rounds, model, chosen, mode, PROMPTS[:n_prompts], spare)
        for setting in chosen:
            row = report.Row(
                f"{setting.name} with drafts, {mode}",
                model.threads,
                "whole answers",
                "tok/s",
                "off",
            )
            for ours, off in zip(found[setting.name], found["plain"], strict=True):
                row.add(ours, off)
            row.loads = [machine.Load(*load) for load in found["loads"]]
            rows.append(row)
    return rows


def _rounds(
    model: engine.Model, settings: Sequence[Setting], mode: str, asked: Sequence[str], spare: int
) -> dict[str, list[Any]]:
    """Tokens a second, a prompt a round; one that others disturbed is asked again."""
    found: dict[str, list[Any]] = {"plain": [], "loads": []}
    prompts, done = list(asked), 0
    while done < len(prompts):
        with machine.Background() as background:
            took = {"plain": _rate(model, OFF, prompts[done], mode, lookup=False)}
            for setting in settings:
                took[setting.name] = _rate(model, setting, prompts[done], mode, lookup=True)
        if spare and (background.load.foreign_percent or 0) > machine.DISTURBED_PERCENT:
            spare -= 1
            continue
        for name, rate in took.items():
            found.setdefault(name, []).append(rate)
        found["loads"].append(background.load)
        done += 1
    return found


def _rate(
    model: engine.Model, setting: Setting, question: str, mode: str, *, lookup: bool
) -> float:
    """Tokens a second of one answer, its prompt left out."""
    assert model.tokenizer is not None
    setting.use(model)
    model.cache.truncate(0)
    ids = model.tokenizer.encode_chat([{"role": "user", "content": question}])
    params = engine.SamplingParams(max_tokens=N_TOKENS, lookup=lookup, **MODES[mode])
    generation = engine.stream(model, ids, params)
    for _ in generation:
        pass
    return (len(generation.token_ids) - 1) / generation.usage.decode_s
