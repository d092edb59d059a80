from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import machine, peers, report, retrieval
from data.documents import Document
from retrieval.evaluation import Question, evaluate
from tests.retrieval.encoders import HashingEncoder

QUESTIONS = [Question(f"q{i}", (f"a{i}",), "T") for i in range(40)]


def hit(text: str) -> Any:
    return SimpleNamespace(title="T", uri="u", url="", text=text)


class Base:
    """Answers `right[mode]` of the questions at rank 2, the others never."""

    def __init__(self, **right: int) -> None:
        self._right = right

    def look_up(self, question: str, k: int, w: int, w_th: float, mode: str) -> Any:
        number = int(question[1:])
        right = [hit(f"it is a{number}")] if number < self._right[mode] else []
        return SimpleNamespace(passages=(hit("nothing"), *right), candidates=(hit("else"),))

    def search(self, question: str) -> Any:
        return self.look_up(question, 3, 5, 0.5, "hybrid").passages if question < "q2" else []


def test_hybrid_stands_beside_the_better_leg_with_a_paired_difference() -> None:
    base: Any = Base(lexical=10, dense=20, hybrid=24)
    rows = {
        (row.case, row.metric): row.as_json()
        for row in retrieval.measure_modes("test", base, QUESTIONS, ["passage"])
    }
    hybrid = rows["test, hybrid", "passage recall@3"]
    assert (hybrid["ours"], hybrid["peer"], hybrid["peer_name"]) == (0.6, 0.5, "dense")
    assert hybrid["difference"] == pytest.approx(0.1) and hybrid["difference_low"] > 0
    assert hybrid["ours_low"] < 0.6 < hybrid["ours_high"] and hybrid["questions"] == 40
    assert rows["test, dense", "passage recall@3"]["peer"] is None
    # "a0" and the like are no answers of four letters
    assert not any(case.startswith("test, 4 letters") for case, _ in rows)
    assert rows["test, hybrid", "passage recall@1"]["ours"] == 0
    assert rows["test, lexical", "query p50 (to p95)"]["unit"] == "ms"


def test_what_is_below_the_threshold_is_counted_as_nothing() -> None:
    base: Any = Base(hybrid=40)
    rows = {row.metric: row.as_json() for row in retrieval.as_asked_rows("c", base, QUESTIONS)}
    assert set(rows) == {
        "passage recall@1", "passage recall@3", "any recall@1", "any recall@3",
        "nothing above the threshold",
    }  # fmt: skip
    n_found = sum(question.question < "q2" for question in QUESTIONS)
    assert rows["nothing above the threshold"]["ours"] == 1 - n_found / 40
    assert rows["any recall@3"]["ours"] == n_found / 40


def test_times_are_the_search_s_own() -> None:
    search = retrieval.Timed(lambda question: [hit(question)])
    assert [search(q)[0].text for q in ("a", "b")] == ["a", "b"]
    assert len(search.seconds) == 2 and min(search.seconds) >= 0


def test_rows_of_quality_become_a_table_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    found = evaluate(lambda question: [hit("a1")], QUESTIONS)
    rows = retrieval.quality_rows("c", found, "any")
    rows.append(retrieval._time_row("c", [0.001, 0.002, 0.003], machine.Load(0.0, 0.0)))
    report.publish("retrieval", {"run": {}}, rows)
    printed = capsys.readouterr().out.splitlines()
    last = json.loads(printed[-1])
    assert last["name"] == "retrieval" and last["rows"][-1]["ours"] == 2.0
    assert any("any recall@1" in line and "0.025 (" in line for line in printed)


def test_a_base_is_made_once_and_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "bench_dir", lambda: tmp_path)
    documents = [Document(f"u{i}", f"Title {i}", f"It is number {i}.") for i in range(5)]
    retrieval.made("small", lambda: iter(documents), None).close()
    first = retrieval.made("small", pytest.fail, None).show()
    assert (first.n_documents, first.n_embedded) == (5, 0)
    encoder = HashingEncoder()
    base = retrieval.made("small", pytest.fail, encoder)
    info = base.show()
    base.close()
    assert info.n_embedded == info.n_chunks == info.n_indexed == 5


def test_questions_with_long_answers_have_rows_of_their_own() -> None:
    base: Any = Base(lexical=1, dense=1, hybrid=1)
    asked = [Question("q0", ("a0",), "T"), Question("q1", ("a1", "a longer one"), "T"),
             Question("q2", ("only words",), "T")]  # fmt: skip
    rows = [row.as_json() for row in retrieval.measure_modes("c", base, asked, ["passage"])]
    found = {row["case"]: row for row in rows if row["metric"] == "passage recall@5"}
    assert found["c, hybrid"]["questions"] == 3 and found["c, hybrid"]["ours"] > 0.3
    assert found["c, 4 letters, hybrid"]["questions"] == 1
    assert found["c, 4 letters, hybrid"]["ours"] == 0
