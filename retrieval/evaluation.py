"""How good is a search? Questions whose answers are known, and how far up those are found.

A passage is right when it contains one of the answers (see matching.py). Three kinds of hits:

passage  a right passage of the document that the question names: the strict one
any      a right passage, whosever
title    a passage of the document that is named, right or not

A question that names no document counts in "any" alone, one without answers in "title" alone.
The first hit decides: recall@k is the share of questions with a hit among the first k, MRR@10 the
mean of 1/rank, nDCG@10 that of 1/log2(1 + rank), both 0 behind rank 10. One right passage is all
that an answer needs, and how many there are nobody has counted.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from .matching import contains, tokens

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .knowledge_base import KnowledgeBase
    from .search import Mode

KS = (1, 3, 5, 10, 20)
KINDS = ("passage", "any", "title")
CUTOFF = 10  # of MRR and nDCG
N_RESAMPLES = 2000
_MISSED = 1 << 30  # a rank behind all others


@dataclass(frozen=True, slots=True)
class Question:
    """title: of the document that has the answer, or its URI or URL; None when nobody knows."""

    question: str
    answers: tuple[str, ...] = ()
    title: str | None = None


class Found(Protocol):
    """What is looked at of a retrieval.Passage."""

    @property
    def title(self) -> str: ...
    @property
    def uri(self) -> str: ...
    @property
    def url(self) -> str: ...
    @property
    def text(self) -> str: ...


SearchFunction = Callable[[str], Sequence[Found]]  # best first


class Estimate(NamedTuple):
    """A mean over questions, and the interval that holds it with 95 % (bootstrap over them)."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True, eq=False)
class Evaluation:
    """ranks: kind → of the first hit for each question, (n_questions,) int64, _MISSED for none;
    -1 where the question does not count for the kind."""

    questions: tuple[Question, ...]
    ks: tuple[int, ...]
    ranks: dict[str, NDArray[np.int64]]

    def counted(self, kind: str) -> NDArray[np.bool_]:
        """Which questions the figures of the kind are means over."""
        counted: NDArray[np.bool_] = self.ranks[kind] >= 0
        return counted

    def values(self, kind: str) -> dict[str, NDArray[np.float64]]:
        """Metric → its value for each question that counts, all of them in [0, 1]."""
        ranks = self.ranks[kind][self.counted(kind)].astype(np.float64)
        within = ranks <= CUTOFF
        return {
            **{f"recall@{k}": (ranks <= k).astype(np.float64) for k in self.ks},
            f"MRR@{CUTOFF}": within / ranks,
            f"nDCG@{CUTOFF}": within / np.log2(1 + ranks),
        }

    def estimates(self, kind: str) -> dict[str, Estimate]:
        """Metric → its mean with the interval; {} when no question counts."""
        return means_of(self.values(kind))

    def where(self, is_wanted: Callable[[Question], bool]) -> Evaluation:
        """The same of some of the questions."""
        kept = np.array([is_wanted(question) for question in self.questions], np.bool_)
        questions = tuple(q for q, is_kept in zip(self.questions, kept, strict=True) if is_kept)
        return Evaluation(questions, self.ks, {kind: r[kept] for kind, r in self.ranks.items()})

    def as_record(self) -> dict[str, Any]:
        """For JSON: kind → number of questions, and metric → [value, low, high]."""
        record: dict[str, Any] = {"n_questions": len(self.questions)}
        for kind in KINDS:
            if n := int(self.counted(kind).sum()):
                figures = {name: list(e) for name, e in self.estimates(kind).items()}
                record[kind] = {"n_questions": n, **figures}
        return record

    def table(self) -> list[tuple[str, str]]:
        """For people: (what, figure with its interval)."""
        lines = [("questions", f"{len(self.questions):,}")]
        for kind in KINDS:
            lines += [
                (f"{kind} {name}", str(estimate)) for name, estimate in self.estimates(kind).items()
            ]
        return lines


def evaluate(
    search: SearchFunction, questions: Sequence[Question], ks: Sequence[int] = KS
) -> Evaluation:
    """Ask every question. `search` has to give max(ks, 10) passages where there are so many."""
    if not questions:
        raise ValueError("there are no questions to ask")
    if not ks or min(ks) < 1:
        raise ValueError(f"the k of recall@k must be above 0, got {list(ks)}")
    ranks = {kind: np.full(len(questions), -1, np.int64) for kind in KINDS}
    for i, question in enumerate(questions):
        for kind, rank in _ranks(question, search(question.question)).items():
            ranks[kind][i] = rank
    return Evaluation(tuple(questions), tuple(sorted(set(ks))), ranks)


def compare(a: Evaluation, b: Evaluation, kind: str = "passage") -> dict[str, Estimate]:
    """Metric → mean of (a - b) over the same questions: above 0, a is better. Paired: what makes a
    question hard for both does not widen the interval."""
    if a.questions != b.questions or a.ks != b.ks:
        raise ValueError("only evaluations of the same questions and k can be compared")
    ours, theirs = a.values(kind), b.values(kind)
    return means_of({name: ours[name] - theirs[name] for name in ours})


def means_of(values: dict[str, NDArray[np.float64]]) -> dict[str, Estimate]:
    """Means over questions with their intervals. values: metric → one value for each question;
    every metric sees the same resamples, so that differences of columns are paired."""
    matrix = np.column_stack(list(values.values()))  # (n_questions, n_metrics)
    n = len(matrix)
    if not n:
        return {}
    rng = np.random.default_rng(0)
    means = np.empty((N_RESAMPLES, matrix.shape[1]))
    for i in range(N_RESAMPLES):
        means[i] = np.bincount(rng.integers(0, n, n), minlength=n) @ matrix / n
    low, high = np.percentile(means, (2.5, 97.5), axis=0)
    middle = matrix.mean(axis=0)
    return {
        name: Estimate(float(middle[i]), float(low[i]), float(high[i]))
        for i, name in enumerate(values)
    }


def ranking(
    base: KnowledgeBase, mode: Mode = "hybrid", k: int = max(KS), *, w: int = 0, w_th: float = 0.5
) -> SearchFunction:
    """The base's search for `evaluate`: all that it ranks, also what its threshold keeps back."""

    def search(question: str) -> Sequence[Found]:
        found = base.look_up(question, k, w, w_th, mode)
        return (*found.passages, *found.candidates)[:k]

    return search


def read_questions(path: Path | str) -> list[Question]:
    """Questions from JSON lines: {"question": …, "answers": […], "title": …}, of which answers (or
    "answer", also a single string) or title may be missing. ValueError names the bad line."""
    path, found = Path(path), []
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                found.append(_question(line, f"{path}, line {number:,}"))
    if not found:
        raise ValueError(f"{path} has no questions; a line is like {_EXAMPLE}")
    return found


_EXAMPLE = '{"question": "Who wrote it?", "answers": ["Ada Lovelace"], "title": "Notes"}'


def _question(line: bytes, where: str) -> Question:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is no JSON ({error}); a line is like {_EXAMPLE}") from error
    if not isinstance(row, dict):
        raise ValueError(f"{where} is no object; a line is like {_EXAMPLE}")
    question, title = row.get("question"), row.get("title")
    answers = row.get("answers", row.get("answer", []))
    answers = [answers] if isinstance(answers, str) else answers
    if not isinstance(question, str) or not question.strip():
        raise ValueError(f'{where} has no "question"; a line is like {_EXAMPLE}')
    if not isinstance(answers, list) or not all(isinstance(a, str) for a in answers):
        raise ValueError(f'{where}: "answers" is a list of strings, as in {_EXAMPLE}')
    if not isinstance(title, str | None):
        raise ValueError(f'{where}: "title" is a string, as in {_EXAMPLE}')
    if not any(tokens(answer) for answer in answers) and not title:
        raise ValueError(f"{where} has neither answers nor a title; a line is like {_EXAMPLE}")
    return Question(question.strip(), tuple(answers), title or None)


def _ranks(question: Question, found: Sequence[Found]) -> dict[str, int]:
    """Kind → rank of the first hit, for the kinds that the question counts in."""
    answers = [tokens(answer) for answer in question.answers]
    is_right = [_has_one(passage.text, answers) for passage in found] if any(answers) else None
    ranks = {}
    if is_right is not None:
        ranks["any"] = _first(is_right)
    if question.title:
        wanted = _named(question.title)
        is_named = [wanted in map(_named, (p.title, p.uri, p.url)) for p in found]
        ranks["title"] = _first(is_named)
        if is_right is not None:
            ranks["passage"] = _first([a and b for a, b in zip(is_right, is_named, strict=True)])
    return ranks


def _has_one(text: str, answers: Sequence[list[str]]) -> bool:
    found = tokens(text)
    return any(contains(found, answer) for answer in answers)


def _first(hits: Sequence[bool]) -> int:
    return hits.index(True) + 1 if True in hits else _MISSED


def _named(title: str) -> str:
    return " ".join(unicodedata.normalize("NFC", title).casefold().split())
