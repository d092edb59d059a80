from __future__ import annotations

import json

import pytest

from data.documents import DocumentError
from data.readers import Limits
from tests.data.readers.conftest import Read


def test_a_list_of_records_becomes_a_document_each(read_as: Read) -> None:
    rows = [
        {
            "title": "A",
            "text": "About a.",
            "url": "https://example.org/a",
            "year": 1999,
            "ok": True,
        },
        {"Title": "B", "Body": ["About b.", "More."], "link": "not an address", "x": {"y": 1}},
        {"text": ""},
        {"content": {"text": "About c."}},
    ]
    documents = read_as("a.json", json.dumps(rows))
    assert [(d.uri.rpartition("#")[2], d.title, d.text) for d in documents] == [
        ("1", "A", "About a."),
        ("2", "B", "About b.\nMore."),
        ("4", "a 4", "About c."),
    ]
    assert documents[0].metadata == {
        "mime": "application/json",
        "url": "https://example.org/a",
        "year": "1999",
        "ok": "true",
    }
    assert documents[1].metadata == {"mime": "application/json"}


@pytest.mark.parametrize(
    ("row", "title", "text"),
    [
        ({"question": "Why?", "answers": ["So.", "Thus."]}, "Why?", "Why?\n\nSo.\nThus."),
        ({"question": "Why?", "answer": {"text": "So."}}, "Why?", "Why?\n\nSo."),
        ({"instruction": "Add.", "input": "1, 2", "output": "3"}, "Add.", "Add.\n\n1, 2\n\n3"),
        ({"prompt": "Hello", "completion": " there"}, "Hello", "Hello\n\nthere"),
        ({"TERM": "Zug", "Definition": "A train."}, "Zug", "Zug\n\nA train."),
        ({"name": "N", "passage": "P."}, "N", "P."),
    ],
)
def test_names_of_columns_are_tolerated(
    read_as: Read, row: dict[str, object], title: str, text: str
) -> None:
    (document,) = read_as("a.json", json.dumps([row]))
    assert (document.title, document.text) == (title, text)


def test_a_list_of_records_may_stand_in_a_mapping(read_as: Read) -> None:
    documents = read_as(
        "a.json", json.dumps({"version": 1, "rows": [{"text": "A"}, {"text": "B"}]})
    )
    assert [document.text for document in documents] == ["A", "B"]


def test_a_single_record_is_a_document(read_as: Read) -> None:
    (document,) = read_as("a.json", json.dumps({"title": "T", "body": "Text."}))
    assert (document.title, document.text) == ("T", "Text.")


def test_another_shape_becomes_paths_and_values(read_as: Read) -> None:
    value = {
        "name": "sparsechat",
        "size": 1.50,
        "none": None,
        "deep": {"list": [1, 2, "three"], "of": [{"x": True}, {"x": []}]},
    }
    (document,) = read_as("a.json", json.dumps(value).replace("1.5", "1.50"))
    assert document.title == "sparsechat"
    assert document.text == (
        "name: sparsechat\nsize: 1.50\ndeep.list: 1, 2, three\ndeep.of[1].x: true"
    )


@pytest.mark.parametrize("text", ['"words"', "[[1, 2], [3]]", "12"])
def test_values_that_are_no_mappings_are_read(read_as: Read, text: str) -> None:
    assert read_as("a.json", text)[0].text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{\n 'a': 1}", r"it is no JSON: .* at line 2, column 2; correct it there"),
        ('["a"', "it is no JSON: .* at line 1, column 5"),
        ("[" * 200_000, "its values are nested too deeply"),
        ("{}", "there is no text in it"),
        ("[]", "there is no text in it"),
        ("", "it is no JSON"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_place(
    read_as: Read, text: str, reason: str
) -> None:
    with pytest.raises(DocumentError, match=rf"a\.json: {reason}"):
        read_as("a.json", text)


def test_a_number_of_any_length_is_read(read_as: Read) -> None:
    assert read_as("a.json", '{"n": ' + "9" * 10_000 + "}")[0].text == "n: " + "9" * 10_000


def test_lone_surrogates_do_not_reach_the_text(read_as: Read) -> None:
    read_as("a.json", '[{"text": "a\\ud800b"}]')[0].text.encode()


def test_a_row_beyond_the_limit_is_refused_and_not_the_whole_file(read_as: Read) -> None:
    rows = json.dumps([{"text": "x" * 60}] * 10)
    assert len(read_as("a.json", rows, Limits(max_chars=100))) == 10
    with pytest.raises(DocumentError, match="it has more than 50 characters"):
        read_as("a.json", rows, Limits(max_chars=50))
