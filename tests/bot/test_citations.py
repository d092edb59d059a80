from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bot import citations
from bot.evidence import Evidence, Source

ZURICH = Source(1, "Zürich", "/z", "Zürich is the largest city, with 434,335 people.", 0.9)
BERN = Source(2, "Bern", "/b", "Bern is the federal city of Switzerland, on the Aare.", 0.6)


def used(answer: str, question: str = "Which is the largest city?") -> list[bool | None]:
    evidence = Evidence("docs", "q", "hybrid", sources=(ZURICH, BERN))
    return [s.used for s in citations.marked(evidence, question, answer).sources]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Zurich.", [True, False]),
        ("The largest city is Zürich, with 434335 people.", [True, False]),
        ("Zürich. Bern lies on the Aare.", [True, True]),
        ("Bern is the federal city.", [False, True]),
        ("Paris, the capital of France.", [False, False]),
        ("Zurich has 9,999,999 inhabitants.", [False, False]),
        ("The largest city.", [None, None]),
        ("", [None, None]),
        ("Yes.", [None, None]),
    ],
)
def test_used_is_what_brought_words_that_the_question_did_not_have(
    answer: str, expected: list[bool | None]
) -> None:
    assert used(answer) == expected


def test_an_answer_without_a_word_from_its_sources_is_ungrounded() -> None:
    evidence = Evidence("docs", "q", "hybrid", sources=(ZURICH, BERN))
    assert citations.is_ungrounded(citations.marked(evidence, "city?", "Paris, in France."))
    assert not citations.is_ungrounded(citations.marked(evidence, "city?", "Zürich."))
    assert not citations.is_ungrounded(citations.marked(evidence, "city?", "Yes."))


def test_a_line_has_number_title_heading_place_score_and_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = (tmp_path / "docs" / "notes.md").as_posix()
    source = Source(1, "Notes", file, "x", 0.914, line=12, headings=("Notes", "Set-up"), used=True)
    report = Source(2, "Report", "/srv/report.pdf", "x", 0.5, page=3)
    article = Source(3, "Zürich", "https://e.org/Z", "x", 0.5, url="https://e.org/Z")
    assert citations.lines([source, report, article]) == [
        '[1] Notes, "Set-up" · docs/notes.md:12 · score 0.91 · used',
        "[2] Report · /srv/report.pdf, p. 3 · score 0.50",
        "[3] Zürich · https://e.org/Z · score 0.50",
    ]


def test_the_line_is_that_of_what_was_found_not_of_its_neighbours() -> None:
    source = Source(1, "T", "/a.txt", "one\ntwo\nthree", 0.5, line=10, hit=(8, 13))
    assert citations.place(source) == "/a.txt:12"
    assert citations.line_of(Source(1, "T", "/a.txt", "x", 0.5)) is None


def test_a_row_of_a_table_is_named_by_its_number(tmp_path: Path) -> None:
    table, odd = tmp_path / "rows.csv", tmp_path / "odd#7"
    odd.touch()
    assert citations.path_and_row(f"{table}#7") == (str(table), "7")
    assert citations.path_and_row(str(odd)) == (str(odd), "")
    assert citations.place(Source(1, "", f"{table}#7", "", 0.5)) == f"{table}#7"


def test_a_place_in_the_home_begins_with_a_tilde(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: Path("/home/me"))
    assert citations.place(Source(1, "", "/home/me/a.txt", "", 0.5, line=1)) == "~/a.txt:1"


def test_the_line_about_the_search_says_why_it_is_less() -> None:
    evidence = Evidence("docs", "q", "lexical", "the encoder is still loading", (ZURICH,))
    assert citations.shown(evidence) == (
        "1 passage from docs, lexical only: the encoder is still loading"
    )


def test_a_record_comes_back_as_it_was() -> None:
    source = replace(
        ZURICH, url="https://x", page=3, line=4, headings=("A", "B"), start=5, end=9, hit=(1, 2),
        dense=0.5, lexical=7.25, dense_rank=1, lexical_rank=None, used=True, chunk_id=5,
    )  # fmt: skip
    evidence = Evidence("docs", "q", "hybrid", "why", (source, BERN), 0.5)
    record = json.loads(json.dumps(citations.to_record(evidence)))
    assert citations.from_record(record) == evidence


@pytest.mark.parametrize(
    "change",
    [
        {"base": 1},
        {"passages": [{}]},
        {"passages": 3},
        {"threshold": None},
        {"passages": [{"text": 1}]},
        {"passages": [{"number": -1}]},
        {"passages": [{"used": "yes"}]},
        {"passages": [{"hit": [1]}]},
        {"passages": [{"page": "x"}]},
    ],
)
def test_a_record_that_is_none_is_refused(change: dict[str, Any]) -> None:
    record = citations.to_record(Evidence("docs", "q", "hybrid", "", (ZURICH,), 0.5))
    if isinstance(change.get("passages"), list):
        change = {"passages": [record["passages"][0] | change["passages"][0]]}
        if change["passages"] == record["passages"]:
            change = {"passages": [{}]}
    with pytest.raises((ValueError, KeyError, TypeError)):
        citations.from_record(record | change)
