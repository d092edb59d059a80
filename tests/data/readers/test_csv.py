from __future__ import annotations

import pytest

from data.documents import DocumentError
from data.readers import Limits
from tests.data.readers.conftest import Read


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found(read_as: Read, delimiter: str) -> None:
    rows = [
        ("title", "text", "url"),
        ("A", '"One, two;\n|three."', "http://x.org/a"),
        ("B", "b", ""),
    ]
    documents = read_as("a.csv", "\r\n".join(delimiter.join(row) for row in rows))
    assert [(d.uri.rpartition("#")[2], d.title, d.text) for d in documents] == [
        ("1", "A", "One, two;\n|three."),
        ("2", "B", "b"),
    ]
    assert documents[0].metadata == {"mime": "text/csv", "url": "http://x.org/a"}


def test_a_tsv_is_cut_at_tabs_only(read_as: Read) -> None:
    (document,) = read_as("a.tsv", "question\tanswer\nA, b, c?\tYes, no, d.")
    assert document.text == "A, b, c?\n\nYes, no, d."


def test_a_table_without_a_column_of_text_is_read_row_by_row(read_as: Read) -> None:
    documents = read_as("towns.csv", "Town,Canton,Population\nZug,ZG,31000\nChur,GR,38000\n")
    assert documents[1].text == "Town: Chur\nCanton: GR\nPopulation: 38000"
    assert documents[1].title == "towns 2"


def test_a_table_without_names_gets_numbers(read_as: Read) -> None:
    documents = read_as("a.csv", "Zug,31000\nChur,38000,x\n")
    assert [document.text for document in documents] == [
        "column 1: Zug\ncolumn 2: 31000",
        "column 1: Chur\ncolumn 2: 38000\ncolumn 3: x",
    ]


def test_one_column_of_text_is_enough(read_as: Read) -> None:
    assert [d.text for d in read_as("a.csv", "text\nOne.\n\nTwo.\n")] == ["One.", "Two."]


def test_a_cell_of_any_size_is_read_within_the_limit(read_as: Read) -> None:
    cell = "x" * 500_000
    assert read_as("a.csv", f"text\n{cell}")[0].text == cell
    with pytest.raises(DocumentError, match="it has more than 1,000 characters of text"):
        read_as("a.csv", f"text\n{cell}", Limits(max_chars=1_000))


def test_an_open_quotation_does_not_hang(read_as: Read) -> None:
    assert read_as("a.csv", 'text\n"' + "line\n" * 100_000)
