"""Which weights make one ranking of two legs, and what do they do on questions they never saw?

    python -m benchmarks.fusion

Prints the weights for retrieval/fusion.py, fitted on the "tune" split of four groups of questions
(see benchmarks/questions.py), and on their "test" split: what the legs, fusion by reciprocal ranks
and fusion by weights find; what each threshold keeps and loses; how true the scores are.

    named      the question names the article whose lead answers it: favours words and titles
    answers    the answer is the title of an article that the question does not name (so a title in
               the question leads away); its chunks count as right whether or not they say so
    none       no lead contains an answer; many leads are about what is asked
    small talk what people type to a chatbot that no encyclopedia answers

The weights of the sum maximise the likelihood of right chunks among a question's candidates; the
logistic function's that of right and wrong ones among the first three, where `named` weighs a half,
`none` 35 % and small talk 15 %.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from benchmarks import questions, retrieval
from benchmarks.questions import Asked
from benchmarks.small_talk import SMALL_TALK
from data import wikipedia_leads
from retrieval import evaluation, fusion, load_encoder
from retrieval.fusion import Candidates, Features, Weights
from retrieval.matching import contains, tokens
from retrieval.search import DEPTH, Clock, Legs, Mode

KS = (1, 3, 5, 10, 20)
LOSS = {"named": 0.5, "none": 0.35, "small talk": 0.15}
MOST = 400  # questions of a group and split
MIN_ANSWER = 4  # letters of an answer that is looked for in all leads
N_TOP = 3
RANK_K = 60
TITLE_SHARE = 1 / 3  # of the fitted weight, see retrieval/fusion.py
THRESHOLDS = (0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3)
Floats = NDArray[np.float64]
Score = Callable[["Case"], Floats]


class Case(NamedTuple):
    """A question with its candidates and which of them are right."""

    found: Candidates
    known: Features
    is_right: NDArray[np.bool_]


class Encoded:
    """An encoder that has encoded all it will be asked for."""

    def __init__(self, vectors: dict[str, NDArray[np.float32]]) -> None:
        self._vectors = vectors
        self.encoder_id, self.dimension = "", 0

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """As retrieval.encoder.Encoder."""
        return np.stack([self._vectors[text] for text in texts])


def groups() -> dict[str, list[Asked]]:
    """The questions by group; at most MOST of a split, the same ones each time."""
    articles = list(wikipedia_leads.leads())
    everything = list(questions.asked())
    linked = questions.link(everything, articles)
    is_named = {each.question for each in linked}
    titles = {" ".join(tokens(questions.name_of(a.title))): a.title for a in articles}
    leads = f" {' '.join(' '.join(tokens(article.text)) for article in articles)} "
    found: dict[str, list[Asked]] = {"named": linked, "answers": [], "none": []}
    for each in everything:
        if each.question in is_named:
            continue
        asked = tokens(each.question)
        answers = [tokens(answer) for answer in each.answers]
        right = [a for a in answers if " ".join(a) in titles and not contains(asked, a)]
        if right and len(" ".join(right[0])) >= MIN_ANSWER:
            found["answers"].append(replace(each, title=titles[" ".join(right[0])]))
        elif not any(f" {' '.join(answer)} " in leads for answer in answers if answer):
            found["none"].append(each)
    found["small talk"] = [Asked(text, (), "small talk") for text in SMALL_TALK]
    return {name: _some(listed) for name, listed in found.items()}


def _some(listed: Sequence[Asked]) -> list[Asked]:
    chosen = []
    for split in ("tune", "test"):
        of_split = [each for each in listed if each.split == split]
        step = max(1, math.ceil(len(of_split) / MOST))
        chosen += of_split[::step]
    return chosen


def cases(mode: Mode, asked: dict[str, list[Asked]], encoder: Any) -> dict[str, list[Case]]:
    """Candidates of all questions, by "group split"."""
    found: dict[str, list[Case]] = {}
    base = retrieval.leads_base(encoder)
    texts = [each.question for listed in asked.values() for each in listed]
    known = Encoded(dict(zip(texts, encoder.encode(texts), strict=True)))
    with base._reader.view() as (store, generation):
        legs = Legs(store, generation, known, mode)
        for name, listed in asked.items():
            for each in listed:
                candidates = legs.candidates(each.question, DEPTH, None, Clock())
                if candidates.chunks:
                    one = Case(candidates, fusion.features(each.question, candidates),
                               _right(name, each, candidates))  # fmt: skip
                    found.setdefault(f"{name} {each.split}", []).append(one)
    return found


def _right(group: str, each: Asked, found: Candidates) -> NDArray[np.bool_]:
    if group not in ("named", "answers"):
        return np.zeros(len(found.chunks), np.bool_)
    answers = [tokens(answer) for answer in each.answers]
    is_titled = [fusion.document_title(chunk) == each.title for chunk in found.chunks]
    if group == "answers":
        return np.array(is_titled)
    return np.array(
        [
            titled and any(contains(tokens(chunk.text), answer) for answer in answers)
            for titled, chunk in zip(is_titled, found.chunks, strict=True)
        ]
    )


def fitted(train: Sequence[Case], names: Sequence[str]) -> Weights:
    """The sum's weights that make right chunks likely among each question's candidates."""
    lists = [(np.stack([getattr(c.known, n) for n in names], 1), c.is_right) for c in train]
    lists = [(columns, right) for columns, right in lists if right.any()]

    def loss(weights: Floats) -> float:
        losses = [
            np.logaddexp.reduce(columns @ weights) - np.logaddexp.reduce((columns @ weights)[right])
            for columns, right in lists
        ]
        return float(np.mean(losses)) + 1e-4 * float(weights @ weights)

    best = minimize(loss, np.ones(len(names)), method="L-BFGS-B")
    return Weights(**dict(zip(names, map(float, best.x), strict=True)))


def calibrated(weights: Weights, by_group: dict[str, list[Case]]) -> Weights:
    """The logistic function's numbers, from the first N_TOP candidates of each question."""
    rows: list[list[float]] = []
    is_right: list[bool] = []
    shares: list[float] = []
    for group, share in LOSS.items():
        listed = by_group[f"{group} tune"]
        for case in listed:
            sums = fusion.total(case.known, weights)
            for i in np.argsort(-sums, kind="stable")[:N_TOP]:
                rows.append(
                    [sums[i], case.known.best(weights), math.log1p(case.known.n_terms), 1.0]
                )
                is_right.append(bool(case.is_right[i]))
                shares.append(share / len(listed))
    x, y, w = np.array(rows), np.where(is_right, 1.0, -1.0), np.array(shares)

    def loss(numbers: Floats) -> float:
        return float(w @ np.logaddexp(0, -y * (x @ numbers))) + 1e-5 * float(numbers @ numbers)

    scale, best, n_terms, bias = map(float, minimize(loss, np.zeros(4), method="L-BFGS-B").x)
    return replace(weights, scale=scale, best=best, n_terms=n_terms, bias=bias)


def by_weights(weights: Weights) -> Score:
    """The scores of retrieval.fusion."""
    return lambda case: fusion.judged(case.known, weights)


def by_leg(column: str) -> Score:
    """One leg's own order; what it did not bring stands last."""

    def score(case: Case) -> Floats:
        ranks = getattr(case.found, column)
        return np.array([-rank if rank else -math.inf for rank in ranks], np.float64)

    return score


def by_ranks(dense_weight: float) -> Score:
    """Reciprocal ranks."""

    def score(case: Case) -> Floats:
        legs = ((case.found.dense_rank, dense_weight), (case.found.lexical_rank, 1.0))
        return sum(
            np.array([w / (RANK_K + rank) if rank else 0.0 for rank in ranks]) for ranks, w in legs
        )  # type: ignore[return-value]

    return score


def first_ranks(listed: Iterable[Case], score: Score) -> Floats:
    """The rank, from 0, of each question's first right chunk; infinite when there is none."""
    found = []
    for case in listed:
        order = np.argsort(-score(case), kind="stable")
        hits = np.flatnonzero(case.is_right[order])
        found.append(float(hits[0]) if len(hits) else math.inf)
    return np.array(found)


def show_ranking(name: str, listed: Sequence[Case], ways: dict[str, Score]) -> dict[str, Any]:
    """A line for each way of ranking, beside the first one; what goes into the JSON."""
    print(f"\n{name}: {len(listed)} questions   recall@{'/'.join(map(str, KS))}, MRR@10, "
          "recall@5 against vectors alone with its 95 % interval")  # fmt: skip
    base: Floats | None = None
    record = {}
    for way, score in ways.items():
        ranks = first_ranks(listed, score)
        base = ranks if base is None else base
        values = [float((ranks < k).mean()) for k in KS]
        mrr = float(np.where(ranks < 10, 1 / (1 + ranks), 0).mean())
        difference = evaluation.means_of({"d": (ranks < 5) * 1.0 - (base < 5) * 1.0})["d"]
        print(f"  {way:24} {' '.join(f'{v:.3f}' for v in values)}  {mrr:.3f}  {difference}")
        record[way] = {**{f"recall@{k}": v for k, v in zip(KS, values, strict=True)}, "mrr": mrr}
    return record


def show_thresholds(by_group: dict[str, list[Case]], weights: Weights) -> list[dict[str, float]]:
    """What each threshold keeps, on the test split."""
    print("\nthreshold   right in the first 3 kept | something found: named, none, small talk")
    record = []
    for least in THRESHOLDS:
        row = {"threshold": least}
        kept = []
        for case in by_group["named test"]:
            scores = fusion.judged(case.known, weights)
            top = np.argsort(-scores, kind="stable")[:N_TOP]
            kept.append(bool((case.is_right[top] & (scores[top] >= least)).any()))
        row["right"] = float(np.mean(kept))
        for group in LOSS:
            best = [fusion.judged(c.known, weights).max() for c in by_group[f"{group} test"]]
            row[group] = float((np.array(best) >= least).mean())
        print("  " + "  ".join(f"{key} {value:.3f}" for key, value in row.items()))
        record.append(row)
    return record


def ways_of(mode: Mode, columns: Sequence[str], title: float, weights: Weights) -> dict[str, Score]:
    """What is compared; `title` is the fitted weight of the title. A single leg has one order."""
    if len(columns) == 1:
        return {"the leg": by_weights(weights)}
    legs = {"vectors": by_leg("dense_rank"), "words": by_leg("lexical_rank")}
    if mode == "hybrid":
        legs |= {"ranks": by_ranks(1), "ranks, vectors x2": by_ranks(2)}
    else:
        del legs["vectors"]
    return legs | {
        "weights": by_weights(weights),
        "weights, title as fitted": by_weights(replace(weights, title=title)),
        "weights, no title": by_weights(replace(weights, title=0)),
    }


def main() -> None:
    """Fit, and show what it does."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fusion", description=(__doc__ or "").splitlines()[0]
    )
    parser.parse_args()
    encoder, asked = load_encoder(), groups()
    record: dict[str, Any] = {"name": "fusion", "questions": {n: len(a) for n, a in asked.items()}}
    settings: list[tuple[str, Mode, tuple[str, ...]]] = [
        ("HYBRID", "hybrid", ("cosine", "coverage", "title")),
        ("WORDS", "lexical", ("bm25", "coverage", "title")),
        ("LEXICAL", "lexical", ("bm25",)),
        ("DENSE", "dense", ("cosine",)),
    ]
    by_mode = {mode: cases(mode, asked, encoder) for mode in ("hybrid", "lexical", "dense")}
    for name, mode, columns in settings:
        by_group = by_mode[mode]
        fit = fitted(by_group["named tune"] + by_group["answers tune"], columns)
        weights = calibrated(replace(fit, title=TITLE_SHARE * fit.title), by_group)
        print(f"\n{name} = {weights}")
        ways = ways_of(mode, columns, fit.title, weights)
        shown = {
            group: show_ranking(f"{name}, {group}", by_group[f"{group} test"], ways)
            for group in ("named", "answers")
        }
        thresholds = show_thresholds(by_group, weights)
        record[name] = {"weights": asdict(weights), **shown, "thresholds": thresholds}
    print(json.dumps(record))


if __name__ == "__main__":
    main()
