"""Does retrieval make answers right? The default model with passages against without.

    python -m benchmarks.answers [--split tune|test] [--n 300] [--k N] [--sparsity LEVEL]
                                 [--quick] [--save]

The first questions of the split (benchmarks/questions.py), each asked alone, greedily, through the
prompt that the conversation builds (bot/chat.py), with the settings that a user gets but for
--max-tokens (128, as OpenChatKit's). An answer is right when it is one of the known answers or
contains one. That is generous to long answers, so their length is a row too, and so is "only the
passages", the share of questions whose shown passages contain an answer: what a machine that
copied everything would reach. Without a known answer in the passages a right one was known, or
luck. Intervals: 95 %, paired bootstrap over the questions.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

import engine
from benchmarks import machine, options, questions, report, retrieval
from bot.chat import Chat
from bot.evidence import Evidence, evidence_of
from bot.settings import Settings
from data.models import resolve
from engine.sparsity.knob import parse_level
from retrieval import KnowledgeBase, evaluation, load_encoder
from retrieval.evaluation import Question
from retrieval.matching import contains_any, tokens

_N_QUICK = 10


class Answered(NamedTuple):
    """What came of one question."""

    is_right: bool
    is_exact: bool  # the answer and nothing else
    text: str
    is_shown: bool  # a passage in the prompt contains an answer
    n_prompt: int  # tokens


def judged(question: Question, text: str, evidence: Evidence | None, n_prompt: int) -> Answered:
    """An answer against the known ones."""
    sources = evidence.sources if evidence else ()
    return Answered(
        is_right=contains_any(text, question.answers),
        is_exact=_words(text) in map(_words, question.answers),
        text=text,
        is_shown=any(contains_any(source.text, question.answers) for source in sources),
        n_prompt=n_prompt,
    )


def _words(text: str) -> list[str]:
    return [token for token in tokens(text) if token.isalnum()]


def ask(chat: Chat, base: KnowledgeBase | None, question: Question) -> Answered:
    """Ask it alone, as a first turn."""
    chat.replace_all([])
    evidence, settings = None, chat.settings
    if base is not None:
        found = base.look_up(
            question.question, settings.k, settings.w, settings.w_th, settings.search_mode
        )
        evidence = evidence_of(base.name, found)
    turn = chat.turn(question.question, evidence)
    for _ in turn.steps(engine.Cancel()):
        pass
    return judged(question, turn.text.strip(), turn.evidence, len(turn.ids))


def rows_of(without: Sequence[Answered], with_: Sequence[Answered]) -> list[report.Row]:
    """Retrieval beside the model alone, over the same questions."""
    rows = []
    for metric in ("is_right", "is_exact"):
        ours, theirs = (
            np.array([getattr(answer, metric) for answer in side], np.float64)
            for side in (with_, without)
        )
        means = evaluation.means_of({"ours": ours, "theirs": theirs, "difference": ours - theirs})
        row = _row("right" if metric == "is_right" else "exact")
        row.peer_name = "without"
        low, high = ratio_interval(ours, theirs)
        row.extra = {
            "questions": len(ours),
            "ours_low": means["ours"].low,
            "ours_high": means["ours"].high,
            "peer_low": means["theirs"].low,
            "peer_high": means["theirs"].high,
            "ratio_low": low,
            "ratio_high": high,
            "difference": means["difference"].value,
            "difference_low": means["difference"].low,
            "difference_high": means["difference"].high,
        }
        row.add(means["ours"].value, means["theirs"].value)
        rows.append(row)
    shown = _row("only the passages")
    shown.add(_mean(answer.is_shown for answer in with_))
    for case, chosen in (("right where a passage has it", True), ("... has not", False)):
        row = _row(case)
        right = [(a.is_right, b.is_right) for a, b in zip(with_, without, strict=True)
                 if a.is_shown is chosen]  # fmt: skip
        if right:
            row.peer_name = "without"
            row.add(_mean(a for a, _ in right), _mean(b for _, b in right))
        rows.append(row)
    length = _row("answer", "characters")
    length.peer_name = "without"
    length.add(_mean(len(a.text) for a in with_), _mean(len(a.text) for a in without))
    prompt = _row("prompt", "tokens")
    prompt.peer_name = "without"
    prompt.add(_mean(a.n_prompt for a in with_), _mean(a.n_prompt for a in without))
    return [*rows, shown, length, prompt]


def ratio_interval(ours: np.ndarray, theirs: np.ndarray) -> tuple[float | None, float | None]:
    """The interval of mean(ours) / mean(theirs) over the same questions; None without a bound."""
    rng, n = np.random.default_rng(0), len(ours)
    picked = rng.integers(0, n, (evaluation.N_RESAMPLES, n))
    above, below = ours[picked].mean(axis=1), theirs[picked].mean(axis=1)
    if not below.all():
        return None, None
    low, high = np.percentile(above / below, (2.5, 97.5))
    return float(low), float(high)


def measure(settings: Settings, split: str, n: int, n_shown: int = 0) -> list[report.Row]:
    """All rows; the first n_shown answers are printed."""
    asked = evaluation.read_questions(questions.path_of(split))[:n]
    base = retrieval.leads_base(load_encoder())
    chat = Chat(settings)
    model = engine.load(resolve(settings.model).path)
    model.set_sparsity(settings.sparsity)
    chat.use_model(model)
    sides: list[list[Answered]] = [[], []]
    for number, question in enumerate(asked, start=1):
        for side, used in zip(sides, (None, base), strict=True):
            side.append(ask(chat, used, question))
        if number % 25 == 0 or number == len(asked):
            right = [sum(answer.is_right for answer in side) for side in sides]
            options.note(f"{number} questions: {right[0]} right without, {right[1]} with passages")
    base.close()
    for question, without, with_ in zip(asked[:n_shown], *sides, strict=False):
        print(f"{question.question} | {', '.join(question.answers)}")
        for name, answer in (("without", without), ("with", with_)):
            mark = "right" if answer.is_right else "wrong"
            print(f"  {name}, {mark}: {' '.join(answer.text.split())}")
    return rows_of(*sides)


def _row(metric: str, unit: str = "") -> report.Row:
    return report.Row("with retrieval", machine.cores(), metric, unit)


def _mean(values: object) -> float:
    return float(np.mean(list(values)))  # type: ignore[call-overload]


def main() -> None:
    """Ask, print, and with --save keep."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.answers", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--quick", action="store_true", help="few questions, not for quoting")
    parser.add_argument("--save", action="store_true", help="keep the result under results/")
    parser.add_argument("--split", choices=("tune", "test"), default="test")
    parser.add_argument("--n", type=int, default=300, help="questions")
    parser.add_argument("--k", type=int, help="passages")
    parser.add_argument("--show", type=int, default=0, metavar="N", help="print N of the answers")
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument(
        "--sparsity", default="off", type=parse_level, help="a level, of a calibrated model"
    )
    args = parser.parse_args()
    settings = replace(Settings(), sample=False, max_tokens=args.max_tokens, sparsity=args.sparsity)
    if args.k:
        settings = replace(settings, k=args.k)
    n = _N_QUICK if args.quick else args.n
    rows = measure(settings, args.split, n, args.show)
    name = "answers" if args.split == "test" else f"answers-{args.split}"
    if args.sparsity != "off":
        name += f"-{args.sparsity}"
    run = {
        "quick": args.quick,
        "split": args.split,
        "questions": n,
        "k": settings.k,
        "sparsity": args.sparsity,
    }
    report.publish(name, retrieval.about(**run), rows, save=args.save)


if __name__ == "__main__":
    main()
