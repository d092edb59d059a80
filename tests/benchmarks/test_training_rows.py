"""The same ids for both sides, and questions that are held out whole."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import training_rows
from benchmarks.training_rows import NOT_TRAINED
from data.datasets import BadRow, Row, Turn
from engine.training.examples import Example
from engine.training.packing import Batch, batch_of


def row(question: str, answer: str) -> Row:
    turns = (Turn("user", question, False), Turn("assistant", answer, True))
    return Row(turns, None, "file.jsonl:1", "oig")


def test_a_batch_comes_apart_into_its_documents_with_labels_where_tokens_are_learned() -> None:
    batch = batch_of(
        [
            Example([5, 6, 7], [False, True, True], "", 0),
            Example([8, 9], [False, False], "", 0),
            Example([3, 4], [False, True], "", 0),
        ]
    )
    assert training_rows.documents(batch) == [
        ([5, 6, 7], [NOT_TRAINED, 6, 7]),
        ([8, 9], [NOT_TRAINED, NOT_TRAINED]),
        ([3, 4], [NOT_TRAINED, 4]),
    ]


def test_an_example_and_its_batch_give_the_same_document() -> None:
    made = Example([5, 6, 7], [False, False, True], "", 0)
    assert training_rows.documents(batch_of([made])) == [training_rows.document(made)]


def test_a_batch_without_labels_has_documents_without_labels() -> None:
    empty = np.zeros(0, np.int64)
    batch = Batch(np.array([1, 2]), np.array([0, 1]), [2], empty, empty)
    assert training_rows.documents(batch) == [([1, 2], [NOT_TRAINED] * 2)]


def test_packed_rows_hold_whole_documents_and_groups_are_full() -> None:
    documents = [([i] * n, [i] * n) for i, n in enumerate((6, 4, 3, 9, 7, 2, 12))]
    groups = training_rows.packed(documents, length=10, n_rows=2)
    assert [len(group) for group in groups] == [2, 2]
    rows = [ids for group in groups for ids, labels in group if ids == labels]
    assert all(len(ids) <= 10 for ids in rows) and len(rows) == 4
    whole = [rows[0].count(i) for i in set(rows[0])]
    assert sorted(whole) == [4, 6]  # filled to the last token


def test_a_document_that_is_longer_than_a_row_is_cut() -> None:
    groups = training_rows.packed([(list(range(12)), list(range(12)))], length=8, n_rows=1)
    assert groups == [[(list(range(8)), list(range(8)))]]


def test_answers_to_one_question_fall_on_one_side() -> None:
    rows: list[Row | BadRow] = []
    for i in range(200):
        rows += [row(f"What is {i}?", "a number"), row(f"what is  {i}", "no letter")]
    rows.append(BadRow("file.jsonl:9", "broken"))
    left, held_out = training_rows.by_question(rows)
    sides = [{training_rows.question_of(one) for one in side} for side in (left, held_out)]
    assert len(left) + len(held_out) == 400
    assert not sides[0] & sides[1]
    assert 10 < len(sides[1]) < 50  # one in eight of 200


def test_rows_come_back_from_a_file_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [row("Ünd?", "Yes\nand no"), BadRow("x", "y"), row("b", "c")]
    training_rows.write_rows(path, rows)
    assert len(path.read_text("utf-8").splitlines()) == 2
    assert [one.turns for one in training_rows.rows_in(path)] == [rows[0].turns, rows[2].turns]  # type: ignore[union-attr]


def test_steps_are_written_for_another_process(tmp_path: Path) -> None:
    path = training_rows.write(tmp_path / "folder" / "steps.json", [[([1, 2], [NOT_TRAINED, 2])]])
    assert json.loads(path.read_text("utf-8")) == [[[[1, 2], [NOT_TRAINED, 2]]]]


def test_the_file_of_rows_is_named_or_stands_in_the_folder_of_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(training_rows.VARIABLE, raising=False)
    with pytest.raises(FileNotFoundError, match="--rows"):
        training_rows.oig_file(None)
    monkeypatch.setenv(training_rows.VARIABLE, str(tmp_path))
    with pytest.raises(FileNotFoundError, match=training_rows.FILE):
        training_rows.oig_file(None)
    (tmp_path / training_rows.FILE).touch()
    assert training_rows.oig_file(None) == tmp_path / training_rows.FILE
    other = tmp_path / "other.jsonl"
    other.touch()
    assert training_rows.oig_file(other) == other
