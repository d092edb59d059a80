"""Has the model learned something that it was not shown? chatterbot-corpus, one question in eight
held out with all its answers.

The loss is that of the held-out answers, the answers are greedy, and a question is asked alone. An
answer matches when it is one of the known ones, but for capitals and signs; F1 is that of its words
with the known answer it is nearest to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from statistics import mean
from typing import Any

from benchmarks import report, training_models, training_rows
from benchmarks.options import note
from benchmarks.training_models import LONG_S
from benchmarks.training_speed import Bench

EPOCHS, TOKENS, MAX_TOKENS = 3, 512, 32
N_SHOWN = 8


def words(text: str) -> list[str]:
    """Without capitals and signs."""
    kept = "".join(c if c.isalnum() or c.isspace() else " " for c in text.casefold())
    return kept.split()


def f1(text: str, known: str) -> float:
    """Of the words that both have, counted as often as they stand."""
    ours, theirs = Counter(words(text)), Counter(words(known))
    n_common = (ours & theirs).total()
    return 2 * n_common / (ours.total() + theirs.total()) if n_common else 0.0


def scores(texts: Sequence[str], known: Sequence[Sequence[str]]) -> dict[str, float]:
    """Shares of matching answers, and mean F1."""
    matches = [
        words(text) in [words(answer) for answer in answers]
        for text, answers in zip(texts, known, strict=True)
    ]
    best = [max(f1(text, a) for a in answers) for text, answers in zip(texts, known, strict=True)]
    return {"match": mean(matches), "f1": mean(best)}


def learned(bench: Bench) -> list[report.Row]:
    """After training beside before; some answers are printed."""
    known = _known(bench)
    run = bench.kept.get("learned, run", _run, bench)
    questions = list(known)[:10] if bench.chosen.quick else list(known)
    texts = {
        name: bench.kept.get(f"learned, answers {name}", _answers, bench, adapter, questions)
        for name, adapter in (("before", None), ("after", run["path"]))
    }
    answers = [known[question] for question in questions]
    for i, question in enumerate(questions[:N_SHOWN]):
        print(f"{question} | {' / '.join(answers[i])}")
        for name, found in texts.items():
            print(f"  {name}: {' '.join(found[i].split())}")
    after, before = (scores(texts[name], answers) for name in ("after", "before"))
    rows = [_row("held-out loss", "nats", True), _row("answer match", ""), _row("answer F1", "")]
    first, last = run["evaluated"][0], run["evaluated"][-1]
    rows[0].add(last[1], first[1])
    rows[1].add(after["match"], before["match"])
    rows[2].add(after["f1"], before["f1"])
    for row in rows:
        row.threads = bench.threads
        row.extra = {"questions": len(questions), "steps": last[0], "base": run["base"]}
    return rows


def _row(metric: str, unit: str, less_is_better: bool = False) -> report.Row:
    return report.Row("chatterbot, LoRA", 1, metric, unit, "before", less_is_better)


def _known(bench: Bench) -> dict[str, list[str]]:
    """Question -> its known answers, of held-out rows of a single turn."""
    found: dict[str, list[str]] = {}
    for row in training_rows.rows_in(bench.data.talk_held_out):
        if len(row.turns) == 2:
            found.setdefault(row.turns[0].content, []).append(row.turns[1].content)
    return found


def _run(bench: Bench) -> dict[str, Any]:
    note("learned: training on chatterbot-corpus")
    # evaluated before the first step and behind the last one
    settings = training_models.settings(
        bench.chosen, "learned", bench.data.talk, base=bench.base, tokens_per_step=TOKENS,
        epochs=EPOCHS, val_data=str(bench.data.talk_held_out),
        max_steps=4 if bench.chosen.quick else None,
    )  # fmt: skip
    with ExitStack() as stack:
        worker = training_models.our_worker(stack, bench.chosen)
        return worker.ask("run", LONG_S, settings=settings)


def _answers(bench: Bench, adapter: str | None, questions: list[str]) -> list[str]:
    note(f"learned: {len(questions)} answers")
    with ExitStack() as stack:
        worker = training_models.our_worker(stack, bench.chosen)
        found: list[str] = worker.ask(
            "answers", LONG_S, model=str(bench.chosen.model), adapter=adapter,
            questions=questions, max_tokens=MAX_TOKENS,
        )["texts"]  # fmt: skip
    return found
