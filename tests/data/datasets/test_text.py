from __future__ import annotations

import pytest

from data.datasets import Row, text


def test_the_text_is_trained_whole() -> None:
    assert text.row({"text": "Once. \n", "id": 1}, "t.jsonl:2") == Row(
        (), "Once.", "t.jsonl:2", "text"
    )


def test_an_empty_text_is_no_row() -> None:
    with pytest.raises(ValueError, match="the field 'text' is empty"):
        text.row({"text": " \n"}, "t.jsonl:2")
