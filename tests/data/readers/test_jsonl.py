from __future__ import annotations

from pathlib import Path

import pytest

from data.documents import Document, DocumentError
from data.readers import read
from tests.data.readers.conftest import Read


def test_every_line_is_a_document_named_by_its_number(read_as: Read) -> None:
    text = '{"text": "One."}\n\n{"title": "T", "text": "Two."}\n"Three."\n{"a": {"b": 4}}'
    documents = read_as("a.jsonl", text)
    assert [(d.uri.rpartition("#")[2], d.title, d.text) for d in documents] == [
        ("1", "a 1", "One."),
        ("3", "T", "Two."),
        ("4", "a 4", "Three."),
        ("5", "a 5", "a.b: 4"),
    ]


def test_a_broken_line_is_named_after_the_documents_before_it(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "One."}\n{"text": "Tw\n')
    found: list[Document] = []
    with pytest.raises(DocumentError, match=r"it is no JSON: .* at line 2, column \d+; correct it"):
        found.extend(iter(read(path)))
    assert [document.text for document in found] == ["One."]


def test_many_rows_come_in_order(read_as: Read) -> None:
    rows = "".join(f'{{"text": "{n} {"x" * 500}"}}\n' for n in range(3_000))
    documents = read_as("a.jsonl", rows)
    assert [document.text.split()[0] for document in documents] == [str(n) for n in range(3_000)]
