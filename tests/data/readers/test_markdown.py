from __future__ import annotations

import pytest

from data.documents import Document
from tests.data.readers.conftest import Read


def outline(document: Document) -> list[tuple[tuple[str, ...], str]]:
    return [
        (section.headings, document.text[section.start : section.end].strip())
        for section in document.sections
    ]


def test_sections_carry_the_path_of_their_headings(read_as: Read) -> None:
    text = "Before.\n\n# One\nA.\n\n## Two\nB.\n\n### Three\nC.\n\n## Four\nD.\n\n# Five\nE.\n"
    (document,) = read_as("a.md", text)
    assert document.text == text
    assert document.title == "One"
    assert outline(document) == [
        ((), "Before."),
        ((), "# One\nA."),  # the title stands with every passage anyway
        (("Two",), "## Two\nB."),
        (("Two", "Three"), "### Three\nC."),
        (("Four",), "## Four\nD."),
        (("Five",), "# Five\nE."),
    ]


def test_a_heading_without_text_goes_with_the_deeper_one_below(read_as: Read) -> None:
    (document,) = read_as("a.md", "---\ntitle: T\n---\n# A\n\n## B\ntext\n\n# C\n\n# D\nmore\n")
    assert outline(document)[1:] == [
        (("A", "B"), "# A\n\n## B\ntext"),
        (("C",), "# C"),
        (("D",), "# D\nmore"),
    ]


def test_underlined_lines_are_headings(read_as: Read) -> None:
    (document,) = read_as(
        "a.md", "Title\n=====\nText.\n\nSub *title*\n---\nMore.\n\nAgain\n===\nEnd."
    )
    assert outline(document) == [
        ((), "Title\n=====\nText."),
        (("Sub title",), "Sub *title*\n---\nMore."),
        (("Again",), "Again\n===\nEnd."),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "```\n# code\n```\n",
        "~~~~ python\n# code\n```\n~~~\n# still\n~~~~\n",
        "```\n# never closed\n",
        "    # indented\n",
        "#hashtag\n",
        "####### seven\n",
        "- item\n---\nText\n",
        "> quoted\n---\nText\n",
        "| a | b |\n|---|---|\n| 1 | 2 |\n",
        "Two lines\nof text\n---\nafter a rule\n",
        "\n---\nrule\n",
        "#\n",
    ],
)
def test_what_only_looks_like_a_heading_is_none(read_as: Read, text: str) -> None:
    (document,) = read_as("a.md", text + "\nWords.")
    assert [section.headings for section in document.sections] == [()]
    assert document.title == "a"


@pytest.mark.parametrize(
    ("line", "title"),
    [
        ("# Plain #", "Plain"),
        ("#   With `code` and *stress*", "With code and stress"),
        ("# A [link](http://x.org/y) here ![pic](p.png)", "A link here pic"),
        ("# C#", "C"),
        ("# " + "long " * 100, "long " * 39 + "long…"),
    ],
)
def test_titles_are_without_markup(read_as: Read, line: str, title: str) -> None:
    (document,) = read_as("a.md", f"{line}\n\nText.")
    assert document.title == title


def test_front_matter_gives_the_title(read_as: Read) -> None:
    (document,) = read_as("a.md", '---\nlang: en\ntitle: "My page"\n---\n# Heading\nText.\n')
    assert document.title == "My page"
    assert document.sections[-1].headings == ("Heading",)


def test_front_matter_that_does_not_end_is_text(read_as: Read) -> None:
    assert read_as("a.md", "---\ntitle: no\n# Heading\n")[0].title == "Heading"


def test_re_structured_text_numbers_its_underlines_as_they_come(read_as: Read) -> None:
    text = "Title\n~~~~~\n\nIntro.\n\nPart\n====\n\nText.\n\nNext\n~~~~\n\nEnd.\n"
    (document,) = read_as("a.rst", text)
    assert [section.headings for section in document.sections] == [(), ("Part",), ("Next",)]
    assert document.title == "Title"


def test_lines_over_and_under_a_title_belong_to_it(read_as: Read) -> None:
    text = "Intro.\n\n=====\nTitle\n=====\n\nText.\n\nPart\n====\n\nMore.\n"
    (document,) = read_as("a.rst", text)
    assert outline(document) == [
        ((), "Intro."),
        ((), "=====\nTitle\n=====\n\nText."),
        (("Part",), "Part\n====\n\nMore."),
    ]


def test_a_page_of_hashes_is_read_in_linear_time(read_as: Read) -> None:
    (document,) = read_as(
        "a.md", "# " + "[" * 50_000 + "\n" + "#" * 100_000 + "\n" + "text\n---\n" * 9_000
    )
    assert document.sections
