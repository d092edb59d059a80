from __future__ import annotations

import pytest

from data.datasets import DATASETS, Row, Turn, dataset, digest, recognised

EXAMPLES = {
    "alpaca": {"instruction": "Add.", "input": "1 2", "output": "3"},
    "bolt": {"prompt": "Answer:", "context": "It rains.", "target": "Take a coat."},
    "messages": {"messages": [{"role": "user", "content": "Hi"}]},
    "oig": {"text": "<human>: Hi\n<bot>: Hello", "metadata": {"source": "x"}},
    "text": {"text": "Once upon a time."},
}


def test_every_dataset_has_an_example_here() -> None:
    assert sorted(EXAMPLES) == sorted(DATASETS)


@pytest.mark.parametrize("name", DATASETS)
def test_a_record_is_recognised_by_one_dataset_only(name: str) -> None:
    assert [n for n in DATASETS if dataset(n).recognises(EXAMPLES[name])] == [name]


@pytest.mark.parametrize(
    "record", [{}, {"text": 3}, {"target": None}, {"source": "a", "target": "b"}, {"messages": []}]
)
def test_other_records_are_recognised_by_none(record: dict[str, object]) -> None:
    assert recognised([record]) is None


def test_what_most_records_are_decides() -> None:
    text, oig = EXAMPLES["text"], EXAMPLES["oig"]
    assert recognised([text, oig, oig, {}]) == "oig"
    assert recognised([oig, text, text]) == "text"


def test_a_name_that_is_nearly_right_is_suggested() -> None:
    with pytest.raises(ValueError, match="no kind of training rows is called 'alpacca'; did you"):
        dataset("alpacca")
    with pytest.raises(ValueError, match="there are alpaca, bolt, messages, oig, text"):
        dataset("_turns")


def test_the_digest_is_of_the_content_alone() -> None:
    turns = (Turn("user", "Hi", False), Turn("assistant", "Hello", True))
    row = Row(turns, None, "a.jsonl:1", "oig")
    assert digest(row) == digest(row._replace(origin="b.jsonl:7", kind="messages"))
    assert len(digest(row)) == 16


def test_rows_of_different_content_have_different_digests() -> None:
    rows = [
        Row((Turn("user", "ab", False), Turn("assistant", "c", True)), None, "", ""),
        Row((Turn("user", "a", False), Turn("assistant", "bc", True)), None, "", ""),
        Row((Turn("user", "ab", False), Turn("assistant", "c", False)), None, "", ""),
        Row((), "abc", "", ""),
        Row((), "", "", ""),
    ]
    assert len({digest(row) for row in rows}) == len(rows)
