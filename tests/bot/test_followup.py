from __future__ import annotations

from dataclasses import replace

import pytest

from bot.evidence import Evidence, Source
from bot.followup import points_back, search_query
from bot.prompt import Exchange


def found(*titles: str, used: bool | None = True, text: str = "") -> Evidence:
    sources = tuple(Source(n, t, t, text, 0.9, used=used) for n, t in enumerate(titles, start=1))
    return Evidence("docs", "query", "hybrid", sources=sources)


ZURICH = Exchange("Where is Zurich?", "In Switzerland.", evidence=found("Zürich"))


@pytest.mark.parametrize(
    "question",
    [
        "What is its population?",
        "who founded it",
        "And Geneva?",
        "what about geneva",
        "Why?",
        "How large?",
        "since when",
        "When was that?",
        "Is there a university there?",
        "Tell me more about them.",
        "the population",
    ],
)
def test_questions_that_point_back(question: str) -> None:
    assert points_back(question)


@pytest.mark.parametrize(
    "question",
    [
        "Where is Zurich?",
        "where is zurich?",
        "Who wrote Hamlet?",
        "Is there a university in Bern?",
        "Define entropy.",
        "explain recursion",
        "How do I install the package?",
        "Switzerland",
        "What is photosynthesis, in two sentences?",
        "What is my name?",
    ],
)
def test_questions_that_stand_alone(question: str) -> None:
    assert not points_back(question)
    assert search_query(question, [ZURICH]) == question


def test_without_a_history_the_question_is_the_query() -> None:
    assert search_query("What is its population?", []) == "What is its population?"


def test_words_are_carried_as_they_were_written() -> None:
    history = [Exchange("explain photosynthesis", "It makes sugar.")]
    assert search_query("Why?", history) == "photosynthesis: Why?"


def test_a_pronoun_takes_the_name_asked_about_before() -> None:
    assert search_query("What is its population?", [ZURICH]) == "Zurich: What is its population?"


def test_names_written_small_are_carried_too() -> None:
    history = [Exchange("where is zurich?", "In Switzerland.")]
    assert search_query("what is its population?", history) == ("zurich: what is its population?")


def test_a_name_out_of_the_answer_counts_when_a_used_source_has_it() -> None:
    evidence = found("Hamlet", text="Hamlet is a tragedy by William Shakespeare.")
    answer = "It was written by William Shakespeare."
    history = [Exchange("Who wrote Hamlet?", answer, evidence=evidence)]
    query = search_query("When was he born?", history)
    assert query == "Hamlet, William Shakespeare: When was he born?"


def test_names_in_an_answer_count_only_where_a_name_was_asked_for() -> None:
    history = [
        Exchange("What is the capital of Switzerland?", "The capital of Switzerland is Bern.")
    ]
    assert search_query("How large is it?", history) == "Switzerland, Bern: How large is it?"
    history = [Exchange("Where is Zurich?", "Zurich is in Switzerland.")]
    assert search_query("How large is it?", history) == "Zurich: How large is it?"


def test_a_name_that_the_model_made_up_is_not_carried() -> None:
    evidence = found("Hamlet", text="Hamlet is a tragedy.")
    history = [Exchange("Who wrote Hamlet?", "It was John Doe.", evidence=evidence)]
    assert search_query("When was he born?", history) == "Hamlet: When was he born?"


def test_the_title_of_a_used_source_says_what_it_is_about() -> None:
    history = [
        Exchange("which city is the largest?", "It has 434,335 people.", evidence=found("Zürich"))
    ]
    assert search_query("what is its area?", history) == "Zürich: what is its area?"


def test_sources_that_were_not_used_say_nothing() -> None:
    evidence = found("Garlic", used=False)
    history = [replace(ZURICH, evidence=evidence)]
    assert "Garlic" not in search_query("What is its population?", history)


def test_a_chain_of_pronouns_goes_back_to_the_question_that_stood_alone() -> None:
    history = [
        ZURICH,
        Exchange("What is its population?", "434,335."),
        Exchange("And its area?", "88 km2."),
    ]
    assert search_query("Who is its mayor?", history) == "Zurich: Who is its mayor?"


def test_the_same_of_something_else_takes_the_words_and_not_the_name() -> None:
    history = [Exchange("What is the population of Zurich?", "434,335.")]
    assert search_query("And Geneva?", history) == "population: And Geneva?"
    assert search_query("What about Geneva?", history) == "population: What about Geneva?"


def test_a_bare_why_takes_names_and_words() -> None:
    history = [Exchange("Why did Rome fall?", "It is disputed.")]
    assert search_query("Why?", history) == "Rome, fall: Why?"


def test_a_pronoun_beside_a_name_takes_the_old_name_too() -> None:
    assert (
        search_query("Is it larger than Geneva?", [ZURICH]) == "Zurich: Is it larger than Geneva?"
    )


@pytest.mark.parametrize(
    "text", ["Thank you!", "thanks a lot", "Hello", "OK", "Hi, how are you?", "Good night, bye"]
)
def test_courtesies_are_not_looked_up(text: str) -> None:
    assert search_query(text, [ZURICH]) == ""


@pytest.mark.parametrize("text", ["How?", "No Country for Old Men", "Why not?", "Yes, where?"])
def test_what_only_sounds_like_a_courtesy_is_looked_up(text: str) -> None:
    assert search_query(text, [ZURICH])


def test_nothing_is_carried_out_of_nothing() -> None:
    assert search_query("Why?", [Exchange("Why?", "Because.")]) == "Why?"
