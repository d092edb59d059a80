from __future__ import annotations

import pytest

from bot.words import content_words, names, sentences, words


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("What is the population of Zürich?", ["population", "zurich"]),
        ("Describe the cats' tails", ["cat", "tail"]),
        ("It has 434,335 people, 3.5 % more", ["434335", "people", "3.5"]),
        ("Zurich's mayors", ["zurich", "mayor"]),
        ("And what about it?", []),
        ("Thank you!", []),
    ],
)
def test_content_words_leave_out_what_every_text_has(text: str, found: list[str]) -> None:
    assert content_words(text) == found


def test_accents_cases_and_plurals_do_not_part_words() -> None:
    assert words("Cafés") == words("cafe")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Where is Zurich?", ["Zurich"]),
        ("Who led the University of Zurich in 1900?", ["University of Zurich"]),
        ("Is Bern larger than New York City?", ["Bern", "New York City"]),
        ("Tell me about photosynthesis", []),
        ("Zurich's mayor and Geneva", ["Zurich", "Geneva"]),
        ("what is iOS", []),
        ("", []),
    ],
)
def test_names_are_runs_of_capitalised_words(text: str, found: list[str]) -> None:
    assert names(text) == found


def test_sentences_end_at_stops_and_line_ends() -> None:
    assert sentences("One 3.5 two. Three!\nFour") == ["One 3.5 two.", "Three!", "Four"]
