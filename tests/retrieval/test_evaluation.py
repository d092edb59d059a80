from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from retrieval import evaluation
from retrieval.evaluation import Estimate, Question, compare, evaluate, ranking, read_questions


@dataclass
class Hit:
    title: str
    text: str
    uri: str = "file"
    url: str = ""


def search_giving(*found: Hit) -> Any:
    return lambda question: found


PASSAGES = (
    Hit("Other", "Something else."),
    Hit("Ada", "She was born in London."),
    Hit("Other", "Babbage met her in 1833."),
    Hit("Ada", "It was in 1833 that they met.", "ada.md", "https://example.org/ada"),
)


def ranks_of(question: Question, *found: Hit) -> dict[str, int]:
    result = evaluate(search_giving(*found), [question])
    return {kind: int(ranks[0]) for kind, ranks in result.ranks.items()}


def test_the_three_kinds_of_hits_have_ranks_of_their_own() -> None:
    question = Question("When did they meet?", ("1833", "in 1834"), "ada")
    assert ranks_of(question, *PASSAGES) == {"passage": 4, "any": 3, "title": 2}


def test_a_document_may_be_named_by_title_uri_or_url() -> None:
    for name in ("ADA", "ada.md", "https://example.org/ada"):
        rank = ranks_of(Question("When?", ("1833",), name), *PASSAGES)["passage"]
        assert rank == 4


def test_what_is_not_found_has_a_rank_behind_all_others() -> None:
    ranks = ranks_of(Question("When?", ("1999",), "Nobody"), *PASSAGES)
    assert min(ranks.values()) > 10**6
    assert min(ranks_of(Question("When?", ("1999",), "Nobody")).values()) > 10**6


def test_questions_count_only_where_something_is_known_of_them() -> None:
    questions = [Question("A", ("1833",)), Question("B", (), "Ada"), Question("C", ("x",), "Ada")]
    result = evaluate(search_giving(*PASSAGES), questions)
    counted = {kind: result.counted(kind).tolist() for kind in evaluation.KINDS}
    assert counted == {
        "passage": [False, False, True],
        "any": [True, False, True],
        "title": [False, True, True],
    }
    record = result.as_record()
    assert [record[kind]["n_questions"] for kind in evaluation.KINDS] == [1, 2, 2]


def test_metrics_are_those_of_the_first_hit() -> None:
    """Ranks 1, 2, 11 and none, by hand."""
    depth = {"a": 1, "b": 2, "c": 11, "d": 10**6}

    def search(question: str) -> Sequence[Hit]:
        return [Hit("", "yes" if i == depth[question] else "no") for i in range(1, 21)]

    questions = [Question(name, ("yes",)) for name in depth]
    estimates = evaluate(search, questions).estimates("any")
    values = {name: estimate.value for name, estimate in estimates.items()}
    assert values == pytest.approx({
        "recall@1": 1 / 4, "recall@3": 2 / 4, "recall@5": 2 / 4, "recall@10": 2 / 4,
        "recall@20": 3 / 4, "MRR@10": (1 + 1 / 2) / 4,
        "nDCG@10": (1 + 1 / np.log2(3)) / 4,
    })  # fmt: skip


def results(*is_found: bool) -> evaluation.Evaluation:
    """Questions found at rank 1, or not at all."""
    asked = iter(is_found)
    questions = [Question(str(i), ("yes",), "T") for i in range(len(is_found))]
    return evaluate(lambda question: [Hit("T", "yes" if next(asked) else "no")], questions)


def test_intervals_hold_the_value_shrink_with_questions_and_repeat() -> None:
    few, many = results(*[True, False] * 10), results(*[True, False] * 500)
    for found in (few, many):
        value, low, high = found.estimates("any")["recall@1"]
        assert value == 0.5 and low < 0.5 < high
    # 1.96 standard errors of a mean of 1,000 coin tosses
    estimate = many.estimates("any")["recall@1"]
    assert estimate.high - 0.5 == pytest.approx(1.96 * 0.5 / 1000**0.5, rel=0.1)
    assert few.estimates("any")["recall@1"].high > estimate.high
    assert results(*[True, False] * 10).as_record() == few.as_record()


def test_intervals_of_what_never_differs_are_points() -> None:
    assert results(*[True] * 30).estimates("any")["recall@5"] == Estimate(1, 1, 1)


def test_differences_are_paired() -> None:
    """Hard and easy questions are so for both: only the ten that changed make the interval."""
    base = [True, False] * 100
    better = [*[True] * 20, *base[20:]]
    gained = compare(results(*better), results(*base))["recall@1"]
    assert gained.value == pytest.approx(10 / 200) and gained.low > 0
    alone = results(*better).estimates("passage")["recall@1"]
    assert gained.high - gained.low < (alone.high - alone.low) / 2
    worse = compare(results(*base), results(*better))["recall@1"]
    assert worse.value == -gained.value
    same = compare(results(*base), results(*base))["MRR@10"]
    assert same == Estimate(0, 0, 0)


def test_a_part_of_the_questions_keeps_its_ranks() -> None:
    whole = results(True, False, True, False)
    part = whole.where(lambda question: question.question in "02")
    assert [question.question for question in part.questions] == ["0", "2"]
    assert part.estimates("any")["recall@1"].value == 1
    assert whole.where(lambda question: False).estimates("any") == {}


def test_only_the_same_questions_can_be_compared() -> None:
    with pytest.raises(ValueError, match="same questions"):
        compare(results(True, False), results(True))


@pytest.mark.parametrize(
    ("questions", "ks"), [([], (1,)), ([Question("A", ("b",))], (0,)), ([], ())]
)
def test_nothing_to_ask_and_ranks_below_one_are_refused(
    questions: list[Question], ks: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match=r"no questions|above 0"):
        evaluate(search_giving(), questions, ks)


def test_the_record_can_be_written_as_json_and_the_table_has_intervals() -> None:
    result = results(*[True, False] * 20)
    record = json.loads(json.dumps(result.as_record()))
    assert record["n_questions"] == 40 and len(record["passage"]["recall@5"]) == 3
    table = dict(result.table())
    assert table["questions"] == "40"
    assert table["passage recall@1"].startswith("0.500 (")


@dataclass
class Base:
    """What `ranking` needs of a KnowledgeBase."""

    asked: list[tuple[Any, ...]] = field(default_factory=list)

    def look_up(self, *asked: Any) -> Any:
        self.asked.append(asked)
        return SimpleNamespace(passages=PASSAGES[:1], candidates=PASSAGES[1:])


def test_a_ranking_goes_on_below_the_threshold_and_does_not_grow_passages() -> None:
    base = Base()
    found = ranking(base, "dense", 3)("Who?")  # type: ignore[arg-type]
    assert tuple(found) == PASSAGES[:3]
    assert base.asked == [("Who?", 3, 0, 0.5, "dense")]


def test_questions_are_read_with_one_answer_or_many(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text(
        '\ufeff{"question": " A? ", "answers": ["x", "y"], "title": "T", "source": "NQ"}\n'
        "\n"
        '{"question": "B?", "answer": "z"}\n'
        '{"question": "C?", "title": "T"}\n',
        "utf-8",
    )
    assert read_questions(path) == [
        Question("A?", ("x", "y"), "T"),
        Question("B?", ("z",)),
        Question("C?", (), "T"),
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "no JSON"),
        ('"A?"', "no object"),
        ('{"answers": ["x"]}', 'no "question"'),
        ('{"question": "  ", "answers": ["x"]}', 'no "question"'),
        ('{"question": "A?", "answers": [1]}', "list of strings"),
        ('{"question": "A?", "answers": {"x": 1}}', "list of strings"),
        ('{"question": "A?", "answers": ["x"], "title": 5}', '"title" is a string'),
        ('{"question": "A?"}', "neither answers nor a title"),
        ('{"question": "A?", "answers": ["", " "]}', "neither answers nor a title"),
    ],
)
def test_a_bad_line_is_named_with_an_example(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text('{"question": "A?", "answers": ["x"]}\n' + line + "\n")
    with pytest.raises(ValueError, match="line 2") as caught:
        read_questions(path)
    message = str(caught.value)
    assert said in message and '"question": "Who wrote it?"' in message and "\n" not in message


def test_an_empty_file_and_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_bytes(b"\n\n")
    with pytest.raises(ValueError, match="has no questions"):
        read_questions(path)
    path.write_bytes(b"\xff\xfe\n")
    with pytest.raises(ValueError, match="line 1 is no JSON"):
        read_questions(path)
