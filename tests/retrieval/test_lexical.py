from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import numpy as np
import pytest

from retrieval import lexical


@pytest.fixture(scope="module")
def fts() -> Iterator[sqlite3.Connection]:
    """A full-text index of a few chunks, made as the store makes its own."""
    database = sqlite3.connect(":memory:")
    database.execute(
        "CREATE VIRTUAL TABLE fts USING fts5(title, body, tokenize='porter unicode61')"
    )
    rows = [
        ("Zürich", "The largest city of Switzerland lies on a lake."),
        ("The Who", "An English rock band formed in London."),
        ("AND", "A gate of digital logic; NEAR and OR and NOT are words here."),
        ("東京", "東京は日本の首都である。"),
        ("C++", 'A language; "hello" is what its first program prints.'),
        ("서울", "서울은 대한민국의 수도이다."),
    ]
    database.executemany("INSERT INTO fts VALUES (?, ?)", rows)
    yield database
    database.close()


def found(fts: sqlite3.Connection, query: str) -> list[str]:
    """The titles that the query finds, best first."""
    rows = fts.execute(
        "SELECT title FROM fts WHERE fts MATCH ? ORDER BY rank", [lexical.match(query)]
    )
    return [row[0] for row in rows]


@pytest.mark.parametrize(
    ("query", "title"),
    [
        ("Where is Zurich?", "Zürich"),
        ("ZÜRICH", "Zürich"),
        ("zu\u0308rich", "Zürich"),
        ("cities of switzerland", "Zürich"),
        ("What is an AND gate?", "AND"),
        ('what does "hello" do', "C++"),
        ("東京", "東京"),
        ("東京は", "東京"),
        ("서울", "서울"),
        ("the who", "The Who"),
    ],
)
def test_a_question_finds_what_it_is_about(fts: sqlite3.Connection, query: str, title: str) -> None:
    assert found(fts, query)[0] == title


@pytest.mark.parametrize(
    "query",
    [
        '"', "'", '""', "a AND", "NEAR(", "NOT x", "title: x", "body : x", "^x", "x*", "-x", "+x",
        "{a b}: c", "x; DROP TABLE fts", "\x00", "a\x00b", "\udc80", "(((", "c++", "x\\", "*",
        "“q”", "%s", "{}", "é\u0301\u0301", "🙂", "\u200b", "AND OR NOT NEAR", "rank",
        "fts", "1e9", "½",
    ],
)  # fmt: skip
def test_no_text_is_read_as_a_query_language(fts: sqlite3.Connection, query: str) -> None:
    match = lexical.match(query)
    if match:
        fts.execute("SELECT rowid FROM fts WHERE fts MATCH ?", [match]).fetchall()


def test_random_characters_are_always_a_valid_query(
    fts: sqlite3.Connection, rng: np.random.Generator
) -> None:
    for _ in range(300):
        codes = rng.choice([*range(1, 0x2FF), 0x4E00, 0xAC00, 0x1F600, 0x200D, 0xFFFD], 12)
        match = lexical.match("".join(map(chr, codes)))
        if match:
            fts.execute("SELECT rowid FROM fts WHERE fts MATCH ?", [match]).fetchall()


def test_stop_words_are_dropped_and_repeats_count_once() -> None:
    assert lexical.match("What is the capital of the capital?") == '"capital"'
    assert lexical.terms("Who wrote Emma, and when?") == ["wrote", "emma"]


@pytest.mark.parametrize(
    "query", ["", "  \n", "?!", "it", "what is the one that they were with it"]
)
def test_nothing_to_search_for_is_an_empty_query(query: str) -> None:
    assert lexical.match(query) == ""


def test_stop_words_alone_are_looked_for_as_a_title() -> None:
    assert lexical.match("To be or not to be") == 'title : "to be or not to be"'


def test_of_a_long_text_the_longest_words_stay_in_order() -> None:
    text = "aa bbbb ccc dddd eeeee aa"
    assert lexical.terms(text, limit=3) == ["bbbb", "dddd", "eeeee"]
    assert len(lexical.terms(" ".join(f"word{i}" for i in range(500)))) == lexical.MAX_TERMS
