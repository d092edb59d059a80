"""Attention that skips blocks of a long text's keys and values: how much faster, how different?

Regime: decoding at a late position reads the cache beside the weights; skipping reads ranges of the
keys and a budget of blocks. The peer is the same engine reading everything, one right after the
other. Speed is that of plain decoding on all cores. Quality is measured where it is hardest, at
the end of a text nearly as long as the context: answers that the dense engine gives to questions
about the text, their logits computed anew for each budget, token by token, as in decoding. The text
is this project's own documents and sources, or the files named with --text.

KL, top-1   mean over the answers' tokens of KL(dense, skipping); share with the same likeliest one
greedy      share of answers that are the same when each token follows the last one's arg max
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import engine
from benchmarks import options, report
from benchmarks.machine import ROOT, Background, Load
from benchmarks.quality import Distance
from engine.cache import KVCache
from engine.sparsity.kv import KVBudget

BUDGETS = (32, 64, 96, 128)  # blocks
POSITIONS = (2000, 4000, 8000)
FILES = ("README.md", "docs/*.md", "engine/*.py")
QUESTIONS = (
    "What is the text above about?",
    "What are the main parts that the text describes, and what does each of them do?",
    "Which measurements are reported in the text?",
    "Which errors and limits does the text mention?",
    "Write a short summary of the last part of the text.",
    "Explain the most important idea of the text to a beginner.",
)
ROOM = 200  # tokens of a question and its answer
ANSWER = 128


@dataclass
class Answers:
    """What the dense engine says about a text: token ids of each question and answer."""

    prompt_ids: list[int]  # what all have in common: the text
    turns: list[tuple[list[int], list[int]]]


def text_of(patterns: Sequence[str]) -> str:
    """The files' contents, one after another."""
    paths = [path for pattern in patterns for path in sorted(ROOT.glob(pattern))]
    return "\n\n".join(path.read_text("utf-8") for path in paths)


def prompts(model: engine.Model, text: str, chosen: options.Options) -> list[list[int]]:
    """Token ids of each question behind as much of the text as fits."""
    assert model.tokenizer is not None
    questions = QUESTIONS[:2] if chosen.quick else QUESTIONS
    n_tokens = 2200 if chosen.quick else model.max_seq_len - ROOM - ANSWER
    ids = model.tokenizer.encode(text)[:n_tokens]
    text = model.tokenizer.decode(ids)
    return [
        model.tokenizer.encode(
            model.tokenizer.render([{"role": "user", "content": f"{text}\n\n{question}"}])
        )
        for question in questions
    ]


def common(texts: Sequence[Sequence[int]]) -> int:
    """How many leading ids all have in common."""
    arrays = np.array([ids[: min(map(len, texts))] for ids in texts])
    return int((arrays == arrays[0]).all(axis=0).cumprod().sum())


def greedy(model: engine.Model, cache: KVCache, question: list[int], n: int) -> list[int]:
    """The answer to a question behind what the cache holds, which is the same afterwards."""
    n_held, ids = len(cache.token_ids), list[int]()
    token_id = int(model.decoder.extend(cache, question)[0].argmax())
    while len(ids) < n and token_id not in model.stop_ids:
        ids.append(token_id)
        token_id = int(model.decoder.extend(cache, [token_id])[0].argmax())
    cache.truncate(n_held)
    return ids


def forced(
    model: engine.Model, cache: KVCache, question: list[int], answer: list[int]
) -> NDArray[np.float32]:
    """Logits after each token of an answer but the last, one call a token."""
    n_held = len(cache.token_ids)
    model.decoder.extend(cache, question)
    rows = [model.decoder.extend(cache, [token_id])[0].copy() for token_id in answer[:-1]]
    cache.truncate(n_held)
    return np.stack(rows)


def quality(
    model: engine.Model, cache: KVCache, answers: Answers, case: str, threads: int
) -> list[report.Row]:
    """Rows of each budget, and of what it reads."""
    decoder = model.decoder
    dense = [forced(model, cache, *turn) for turn in answers.turns]
    rows = []
    for n_blocks in BUDGETS:
        options.note(f"quality with {n_blocks} blocks")
        decoder.use_kv_budget(KVBudget(n_blocks))
        found, same = Distance(), 0
        for turn, expected in zip(answers.turns, dense, strict=True):
            found.add(expected, forced(model, cache, *turn))
            same += greedy(model, cache, turn[0], len(turn[1])) == turn[1]
        decoder.use_kv_budget(None)
        figures = found.figures() | {"greedy": same / len(dense)}
        for metric in ("KL", "top-1", "greedy"):
            unit = "nats" if metric == "KL" else ""
            row = report.Row(f"{case}, {n_blocks} blocks", threads, metric, unit)
            row.less_is_better = metric == "KL"
            row.extra = {"positions": found.n_positions, "answers": len(dense)}
            row.add(figures[metric])
            rows.append(row)
    return rows


def seconds_of(
    model: engine.Model, cache: KVCache, position: int, ids: Sequence[int]
) -> tuple[float, Load]:
    """What a token takes from `position` on; the cache is cut back to it."""
    for n, warm in ((8, True), (len(ids), False)):
        cache.truncate(position)
        with Background() as background:
            started = time.perf_counter()
            for token_id in ids[:n]:
                model.decoder.extend(cache, [token_id])
            seconds = time.perf_counter() - started
        if not warm:
            cache.truncate(position)
    return seconds / len(ids), background.load


def bytes_read(cache: KVCache, position: int, n_blocks: int) -> tuple[int, int]:
    """Of the cache for a token: with a budget, the ranges of its keys included, and without."""
    ranges = cache.key_ranges().data
    rated = ranges[:, :, : -(-position // 256)].nbytes
    return 16 * n_blocks * cache.bytes_per_token + rated, position * cache.bytes_per_token


def speed(
    model: engine.Model, cache: KVCache, chosen: options.Options, threads: int
) -> list[report.Row]:
    """Rows of each position and budget, from the latest position on: the cache is cut back."""
    rows = []
    ids = cache.token_ids[100 : 100 + (16 if chosen.quick else 48)]
    last = len(cache.token_ids)
    for nominal in (p for p in reversed(POSITIONS) if p <= last + ROOM):
        position = min(nominal, last)
        for n_blocks in (n for n in BUDGETS if 32 * n <= position):
            case = f"{chosen.label}, position {nominal:,}, {n_blocks} blocks"
            options.note(case)
            row = report.Row(case, threads, "decode", "tok/s", "dense")
            budget = KVBudget(n_blocks)
            for _ in range(chosen.rounds):
                model.decoder.use_kv_budget(budget)
                sparse, load = seconds_of(model, cache, position, ids)
                model.decoder.use_kv_budget(None)
                dense, other = seconds_of(model, cache, position, ids)
                row.add(1 / sparse, 1 / dense, load, other)
            ours, all_bytes = bytes_read(cache, position, n_blocks)
            row.extra = {"cache_bytes": ours, "cache_bytes_dense": all_bytes}
            rows.append(row)
    return rows


def measure(chosen: options.Options, text: str) -> list[report.Row]:
    """All rows."""
    threads = chosen.threads[-1]
    model = engine.load(chosen.model, threads=threads)
    texts = prompts(model, text, chosen)
    n_answer = 24 if chosen.quick else ANSWER
    n = common(texts)
    cache = model.decoder.new_cache()
    options.note(f"reading {n:,} tokens")
    model.decoder.extend(cache, texts[0][:n])
    turns = [(ids[n:], greedy(model, cache, ids[n:], n_answer)) for ids in texts]
    answers = Answers(texts[0][:n], [turn for turn in turns if len(turn[1]) > 1])
    case = f"{chosen.label}, position {n:,}"
    rows = quality(model, cache, answers, case, threads)
    rows = speed(model, cache, chosen, threads) + rows
    model.close()
    return rows


def main() -> None:
    """Measure, print, and with --save keep."""
    own = argparse.ArgumentParser(add_help=False)
    own.add_argument("--text", nargs="+", type=Path, default=[])
    files, sys.argv[1:] = own.parse_known_args()
    doc = (__doc__ or "").splitlines()[0]
    chosen = options.parse_plain("kv_skipping", doc, rounds=5, formats=False)
    chosen = replace(chosen, peer=None)  # the other side is ours too
    named = "\n\n".join(path.read_text("utf-8") for path in files.text)
    rows = measure(chosen, named or text_of(FILES))
    report.publish(chosen.name, chosen.about(), rows, save=chosen.save)


if __name__ == "__main__":
    main()
