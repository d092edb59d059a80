"""Which passages are found for questions whose answers are known, in each mode, and how soon?

    python -m benchmarks.retrieval [--split tune|test] [--quick] [--save]

The base is the embedded default, 10,033 leads of Wikipedia; it is made once, in the folder of the
benchmarks, which takes minutes of encoding. Questions: benchmarks/questions.py says which, with
their caveats. "test" is for reports, "tune" for whoever changes the search.

Cases: the questions in every mode, all chunks ranked and none expanded (brackets: 95 % bootstrap
intervals; "peer" of hybrid is the better of its two legs, `difference` is paired with its interval
in the JSON); "4 letters", those whose answers all have four letters and more; "as asked", what
`search` gives by itself (3 passages, expanded, above the threshold); "masked", descriptions against
leads without titles. A query's time has the encoding of the question in it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from benchmarks import machine, options, peers, questions, report
from data import files, wikipedia_leads
from data.documents import Document
from retrieval import KnowledgeBase, evaluation, load_encoder
from retrieval.encoder import Encoder
from retrieval.evaluation import Evaluation, Question

MODES = ("lexical", "dense", "hybrid")
_N_MASKED = 1000
_N_QUICK = 60
_WARM_UP = 5


def leads_base(encoder: Encoder) -> KnowledgeBase:
    """The embedded default, whole: made, or gone on with, when it is not."""
    return made("leads", wikipedia_leads.leads, encoder)


def masked_base(encoder: Encoder) -> KnowledgeBase:
    """The same articles without their titles."""
    return made("leads-masked", lambda: map(questions.masked, wikipedia_leads.leads()), encoder)


def made(
    name: str, documents: Callable[[], Iterable[Document]], encoder: Encoder | None
) -> KnowledgeBase:
    """The base of that name in the benchmarks' folder; encoder None makes no vectors."""
    folder = peers.bench_dir() / "knowledge"
    files.private_folder(folder)
    if not (folder / name).is_dir():
        KnowledgeBase.create(folder / name).close()
    base = KnowledgeBase.open(folder / name)
    if not (folder / f"{name}.complete").is_file():
        options.note(f"{name}: reading articles")
        base.add_documents(documents())
        (folder / f"{name}.complete").touch()
    if encoder is None:
        return base
    if base.show().n_embedded < base.show().n_chunks:
        options.note(f"{name}: {base.show().n_chunks:,} chunks become vectors")
        base.embed(encoder, on_progress=_told_each(1000))
    base.use_encoder(encoder)
    base.build()
    return base


def _told_each(step: int) -> Callable[[int, int | None, str], None]:
    last = 0

    def told(done: int, total: int | None, what: str) -> None:
        nonlocal last
        if done >= last + step:
            last = done
            options.note(f"  {done:,} of {total or 0:,} {what}")

    return told


class Timed:
    """A search function that remembers how many seconds each call took."""

    def __init__(self, search: evaluation.SearchFunction) -> None:
        self._search, self.seconds = search, list[float]()

    def __call__(self, question: str) -> Sequence[evaluation.Found]:
        started = time.perf_counter()
        found = self._search(question)
        self.seconds.append(time.perf_counter() - started)
        return found


def measure_modes(
    case: str, base: KnowledgeBase, asked: Sequence[Question], kinds: Sequence[str]
) -> list[report.Row]:
    """Rows of every mode: how soon, and how good."""
    found: dict[str, Evaluation] = {}
    rows = []
    for mode in MODES:
        options.note(f"{case}: {len(asked):,} questions, {mode}")
        search = Timed(evaluation.ranking(base, mode))  # type: ignore[arg-type]
        for question in asked[:_WARM_UP]:
            search(question.question)
        search.seconds.clear()
        with machine.Background() as background:
            found[mode] = evaluation.evaluate(search, asked)
        rows.append(_time_row(f"{case}, {mode}", search.seconds, background.load))
    rows += mode_rows(case, found, kinds)
    if "passage" in kinds:
        long = {mode: result.where(_has_long_answers) for mode, result in found.items()}
        rows += mode_rows(f"{case}, 4 letters", long, ["passage"])
    return rows


def mode_rows(case: str, found: Mapping[str, Evaluation], kinds: Sequence[str]) -> list[report.Row]:
    """The quality of each mode, hybrid beside the better leg."""
    rows = []
    for mode in MODES:
        legs = {leg: found[leg] for leg in ("lexical", "dense")} if mode == "hybrid" else {}
        for kind in kinds:
            rows += quality_rows(f"{case}, {mode}", found[mode], kind, legs)
    return rows


def _has_long_answers(question: Question) -> bool:
    return all(sum(map(str.isalpha, answer)) >= 4 for answer in question.answers)


def quality_rows(
    case: str, ours: Evaluation, kind: str, legs: Mapping[str, Evaluation] | None = None
) -> list[report.Row]:
    """A row for each metric; beside it the best of `legs` in that metric."""
    theirs = {name: leg.estimates(kind) for name, leg in (legs or {}).items()}
    differences = {name: evaluation.compare(ours, leg, kind) for name, leg in (legs or {}).items()}
    rows = []
    for metric, estimate in ours.estimates(kind).items():
        row = _row(case, f"{kind} {metric}", "")
        row.extra = {
            "ours_low": estimate.low,
            "ours_high": estimate.high,
            "questions": int(ours.counted(kind).sum()),
        }
        best = max(theirs, key=lambda name: theirs[name][metric].value, default=None)
        if best:
            row.peer_name = best
            names = ("difference", "difference_low", "difference_high")
            row.extra |= dict(zip(names, differences[best][metric], strict=True))
        row.add(estimate.value, theirs[best][metric].value if best else None)
        rows.append(row)
    return rows


def as_asked_rows(case: str, base: KnowledgeBase, asked: Sequence[Question]) -> list[report.Row]:
    """What the shell would show the model: is an answer in it, and how often is there nothing?"""
    empty: list[bool] = []

    def search(question: str) -> Sequence[evaluation.Found]:
        found = base.search(question)
        empty.append(not found)
        return found

    result = evaluation.evaluate(search, asked, (1, 3))
    rows = [
        row
        for kind in ("passage", "any")
        for row in quality_rows(case, result, kind)
        if "recall" in row.metric
    ]
    nothing = _row(case, "nothing above the threshold", "")
    nothing.less_is_better = True
    nothing.add(float(np.mean(empty)))
    return [*rows, nothing]


def measure(split: str, quick: bool) -> list[report.Row]:
    """All rows."""
    encoder = load_encoder()
    asked = evaluation.read_questions(questions.path_of(split))
    described = evaluation.read_questions(questions.path_of("descriptions"))
    rng = np.random.default_rng(0)
    described = [described[i] for i in rng.permutation(len(described))[:_N_MASKED]]
    if quick:
        asked, described = asked[:_N_QUICK], described[:_N_QUICK]
    base = leads_base(encoder)
    rows = measure_modes(split, base, asked, evaluation.KINDS)
    rows += as_asked_rows(f"{split}, as asked", base, asked)
    base.close()
    masked = masked_base(encoder)
    rows += measure_modes("masked", masked, described, ["title"])
    masked.close()
    return rows


def _row(case: str, metric: str, unit: str) -> report.Row:
    return report.Row(case, machine.cores(), metric, unit)


def _time_row(case: str, seconds: Sequence[float], load: machine.Load) -> report.Row:
    row = _row(case, "query p50 (to p95)", "ms")
    row.less_is_better = True
    low, middle, high = np.percentile(np.asarray(seconds) * 1000, (50, 50, 95))
    row.extra = {"ours_low": float(low), "ours_high": float(high)}
    row.add(float(middle), None, load)
    return row


def about(**run: Any) -> dict[str, Any]:
    """The machine and the run, for the JSON."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    return machine.describe() | {"run": {"at": at, **run}}


def main() -> None:
    """Measure, print, and with --save keep."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.retrieval", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--quick", action="store_true", help="few questions, not for quoting")
    parser.add_argument("--save", action="store_true", help="keep the result under results/")
    parser.add_argument("--split", choices=("tune", "test"), default="test")
    args = parser.parse_args()
    rows = measure(args.split, args.quick)
    name = "retrieval" if args.split == "test" else f"retrieval-{args.split}"
    report.publish(name, about(quick=args.quick, split=args.split), rows, save=args.save)


if __name__ == "__main__":
    main()
