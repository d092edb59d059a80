from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from benchmarks import questions
from benchmarks.questions import MEMBERS, Asked, described, link, masked, read_member
from data.documents import Document


def lead(title: str, text: str, description: str = "") -> Document:
    metadata = {"description": description} if description else {}
    return Document(f"https://example.org/{title}", title, text, (), metadata)


ARTICLES = [
    lead("Mercury (planet)", "Mercury is the first planet from the Sun.", "First planet"),
    lead("Mercury (element)", "Mercury is liquid, with the symbol Hg.", "Chemical element"),
    lead("Planet", "A planet is a large body.", "Large body"),
    lead("Sun", "The Sun is a star. The sun shines.", "Star at the centre"),
    lead("The Raven", "The Raven is a poem by Poe. He lost Lenore.", "Poem of 1845"),
    lead("Raven", "A raven is a bird.", "Large body"),
]


def ask(question: str, *answers: str) -> list[tuple[str, tuple[str, ...]]]:
    return [(a.title, a.answers) for a in link([Asked(question, answers, "NQ dev")], ARTICLES)]


def test_a_question_is_linked_to_the_article_that_it_names_and_that_answers_it() -> None:
    assert ask("which symbol has mercury", "Hg", "unknown") == [("Mercury (element)", ("Hg",))]
    assert ask("what is mercury nearest to", "the Sun") == [("Mercury (planet)", ("the Sun",))]


def test_the_longest_title_comes_first() -> None:
    assert ask("who is lost in the raven", "Lenore") == [("The Raven", ("Lenore",))]


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("which symbol has mercurys", "Hg"),  # another word
        ("where does the sun shine", "star"),  # a title too short to be one
        ("which planet is it", "Pluto"),  # not in the lead
        ("is mercury the first planet", "first planet"),  # it is in the question
        ("which bird is the raven", "raven"),  # it is the title
        ("which symbol has mercury", ""),
    ],
)
def test_questions_without_a_link_are_left_out(question: str, answer: str) -> None:
    assert ask(question, answer) == []


@pytest.fixture
def jar(tmp_path: Path) -> Path:
    path = tmp_path / "a.jar"
    lines = {
        "NQ dev": "who is it\t['Ada', \"it's\"]\nwhere\twas it\t['here']\n",
        "NQ test": 'who sings\t"[""McDonald \'s"", \'Bob "B" Dole\']"\n',
        "SQuAD": '{"question": "What is it?", "answer": ["Ada", "Ada", "Bob"]}\n\n',
    }
    with zipfile.ZipFile(path, "w") as archive:
        for source, member in MEMBERS.items():
            archive.writestr(member, lines[source])
        archive.writestr("topics-and-qrels/topics.dpr.trivia.test.txt", "secret\t['x']\n")
        archive.writestr("topics-and-qrels/topics.dpr.wq.test.txt", '{"question": "secret"}\n')
    return path


def test_questions_are_read_in_all_three_forms(
    jar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(questions, "folder", lambda: tmp_path)
    monkeypatch.setattr(questions, "_JAR_BYTES", jar.stat().st_size)
    jar.rename(tmp_path / Path(questions.JAR.member).name)
    assert [(a.source, a.question, a.answers) for a in questions.asked()] == [
        ("NQ dev", "who is it", ("Ada", "it's")),
        ("NQ dev", "where\twas it", ("here",)),
        ("NQ test", "who sings", ("McDonald 's", 'Bob "B" Dole')),
        ("SQuAD", "What is it?", ("Ada", "Bob")),
    ]


@pytest.mark.parametrize("name", ["trivia.test", "trivia.dev", "wq.test", "curated.test"])
def test_sets_kept_for_the_last_judgement_are_never_opened(jar: Path, name: str) -> None:
    with pytest.raises(ValueError, match="last judgement"):
        read_member(jar, f"topics-and-qrels/topics.dpr.{name}.txt")
    assert not any(word in member for member in MEMBERS.values() for word in ("trivia", "wq"))


def test_the_split_depends_on_the_question_alone_and_has_both_sides() -> None:
    splits = [Asked(f"question {n}", (), "x").split for n in range(2000)]
    assert splits == [Asked(f"question {n}", ("a",), "y", "T").split for n in range(2000)]
    assert 0.35 < splits.count("tune") / 2000 < 0.45
    assert set(splits) == {"tune", "test"}


def test_descriptions_that_are_shared_or_name_the_article_are_no_queries() -> None:
    named = lead("Poe", "Poe was a writer.", "Edgar Allan Poe, the writer")
    found = described([*ARTICLES, named])
    assert [(a.question, a.title) for a in found] == [
        ("First planet", "https://example.org/Mercury (planet)"),
        ("Chemical element", "https://example.org/Mercury (element)"),
        ("Star at the centre", "https://example.org/Sun"),
        ("Poem of 1845", "https://example.org/The Raven"),
    ]


def test_masked_articles_have_their_title_nowhere_in_what_is_searched() -> None:
    planet, sun = masked(ARTICLES[0]), masked(ARTICLES[3])
    assert (planet.title, planet.text) == ("", "it is the first planet from the Sun.")
    assert sun.text == "The it is a star. The it shines."
    assert planet.uri == ARTICLES[0].uri
    assert masked(lead("Sun", "Sunday is no sun.")).text == "Sunday is no it."


def test_the_three_files_are_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [Asked("which symbol has mercury", ("Hg",), "NQ dev"),
             Asked("who is lost in the raven", ("Lenore",), "SQuAD")]  # fmt: skip
    monkeypatch.setattr(questions, "folder", lambda: tmp_path / "questions")
    monkeypatch.setattr(questions, "asked", lambda: iter(asked))
    monkeypatch.setattr(questions.wikipedia_leads, "leads", lambda: iter(ARTICLES))
    rows = [
        json.loads(line)
        for split in ("tune", "test")
        for line in questions.path_of(split).read_text("utf-8").splitlines()
    ]
    assert {row["title"] for row in rows} == {"Mercury (element)", "The Raven"}
    monkeypatch.setattr(questions, "asked", None)  # whoever builds again fails
    assert questions.path_of("descriptions").is_file()
