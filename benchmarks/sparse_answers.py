"""Whole answers of each setting against the dense model's: greedy, and drawn with the same seed."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import engine
from benchmarks import questions, report
from benchmarks.divergence import mean_of
from benchmarks.kept import Kept
from benchmarks.sparse_settings import Setting, use_off
from retrieval.evaluation import read_questions

N_TOKENS = 96
MODES = {  # with drafts, as users have it
    "greedy": engine.SamplingParams(temperature=0, max_tokens=N_TOKENS),
    "drawn": engine.SamplingParams(temperature=0.6, top_k=40, seed=1, max_tokens=N_TOKENS),
}


def prompts(model: engine.Model, n: int) -> list[list[int]]:
    """The first n questions of those to tune on, each asked alone."""
    assert model.tokenizer is not None
    asked = read_questions(questions.path_of("tune"))[:n]
    chats = [[{"role": "user", "content": each.question}] for each in asked]
    return [model.tokenizer.encode_chat(chat) for chat in chats]


def measure(
    model: engine.Model, settings: Sequence[Setting], asked: Sequence[list[int]], kept: Kept
) -> list[report.Row]:
    """A row for each mode and setting."""
    found: dict[str, list[tuple[int, int | None]]] = {}
    for i, prompt in enumerate(asked):
        for mode, params in MODES.items():
            dense = kept.get(f"answer {mode} {i}", _dense, model, prompt, params)
            for setting in settings:
                name = f"answer {setting.name} {mode} {i}"
                first = kept.get(name, _first, model, setting, prompt, params, dense)
                found.setdefault(f"{setting.name}, {mode}", []).append((len(dense), first))
    return [row_of(case, model.threads, differences) for case, differences in found.items()]


def _dense(model: engine.Model, prompt: list[int], params: engine.SamplingParams) -> list[int]:
    use_off(model)
    model.cache.truncate(0)
    generation = engine.stream(model, prompt, params)
    for _ in generation:
        pass
    return generation.token_ids


def _first(
    model: engine.Model,
    setting: Setting,
    prompt: list[int],
    params: engine.SamplingParams,
    dense: list[int],
) -> int | None:
    """Where the setting's answer differs first from the dense one; None = nowhere."""
    setting.use(model)
    model.cache.truncate(0)  # a prompt that another setting read is not this one's
    generation = engine.stream(model, prompt, params)
    for _ in generation:
        n = len(generation.token_ids)
        if generation.token_ids != dense[:n]:
            return n - 1
    return None if len(generation.token_ids) == len(dense) else len(generation.token_ids)


def row_of(case: str, threads: int, found: Sequence[tuple[int, int | None]]) -> report.Row:
    """From (tokens of the dense answer, first difference) of each question."""
    row = report.Row(case, threads, "identical answers", "")
    same = mean_of([float(first is None) for _, first in found], [1] * len(found))
    row.add(same.value)
    firsts = [first for _, first in found if first is not None]
    low, high = same.interval()
    row.extra = {
        "ours_low": max(0.0, low),
        "ours_high": min(1.0, high),
        "answers": len(found),
        "tokens": sum(n for n, _ in found) / len(found),
        "first_difference_median": median(firsts) if firsts else None,
        # each answer stops at its first difference: so many tokens were asked of both sides
        "differences_a_token": len(firsts) / sum(n if f is None else f + 1 for n, f in found),
    }
    return row
