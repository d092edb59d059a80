from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from data import training_rows
from data.datasets import BadRow, Row, digest
from data.training_rows import Rows, open_rows, split

pytestmark = pytest.mark.usefixtures("home")  # it is the current folder, too


def write(name: str, *texts: str) -> None:
    path = Path(name)
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def numbers(name: str, n: int) -> None:
    write(name, *(f"{name} {number}" for number in range(n)))


def texts(rows: Rows, epoch: int = 0, start: int = 0) -> list[str]:
    return [row.text or "" for row in rows.epoch(epoch, start) if isinstance(row, Row)]


def test_an_epoch_is_every_row_once_shuffled() -> None:
    numbers("a.jsonl", 50)
    numbers("d/b.jsonl", 20)
    Path("d/c.jsonl.gz").write_bytes(gzip.compress(b'{"text": "packed"}\n'))
    rows = open_rows("a.jsonl,d")
    assert rows.n_rows == 71
    assert [source.n_rows for source in rows.sources] == [50, 21]
    in_order = [row.text for row in rows.each() if isinstance(row, Row)]
    assert in_order[:2] == ["a.jsonl 0", "a.jsonl 1"] and in_order[-1] == "packed"
    epochs = [texts(rows, epoch) for epoch in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(filter(None, in_order))
    assert in_order != epochs[0] != epochs[1]


def test_the_seed_decides_the_order() -> None:
    numbers("a.jsonl", 50)
    assert texts(open_rows("a.jsonl", seed=3)) == texts(open_rows("a.jsonl", seed=3))
    assert texts(open_rows("a.jsonl", seed=3)) != texts(open_rows("a.jsonl", seed=4))


def test_an_epoch_can_begin_anywhere() -> None:
    numbers("a.jsonl", 30)
    rows = open_rows("a.jsonl:2")
    assert [texts(rows, 1, start) for start in range(31)] == [
        texts(rows, 1)[start:] for start in range(31)
    ]


def test_weights_are_proportions_of_an_epoch() -> None:
    numbers("a.jsonl", 90)
    numbers("b.jsonl", 10)
    numbers("c.jsonl", 20)
    rows = open_rows("a.jsonl:2,b.jsonl:0.5,c.jsonl")  # c has 1
    assert rows.n_rows == 120
    counts = Counter(text.partition(" ")[0] for text in texts(rows))
    assert counts == {"a.jsonl": 69, "b.jsonl": 17, "c.jsonl": 34}
    assert sum(1 for _ in rows.each()) == 120


def test_bad_rows_come_in_their_places() -> None:
    Path("a.jsonl").write_text('{"text": "one"}\noops\n{"text": "two"}\n')
    rows = open_rows("a.jsonl")
    assert rows.n_rows == 3
    bad = [row for row in rows.epoch(0) if isinstance(row, BadRow)]
    assert bad == [BadRow("a.jsonl:2", "it is no JSON: Expecting value at column 1")]


def test_all_turns_are_trained_when_asked_for() -> None:
    write("a.jsonl", "Facts.\n<human>: a\n<bot>: b")
    (answers,), (everything,) = (
        [row for row in open_rows("a.jsonl", loss=loss).epoch(0) if isinstance(row, Row)]
        for loss in ("answers", "all")
    )
    assert [turn.trained for turn in answers.turns] == [False, False, True]
    assert [turn.trained for turn in everything.turns] == [True, True, True]


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ("a.jsonl", {"loss": "some"}, "loss is 'some'; it must be one of answers, all"),
        (
            "a.jsonl",
            {"kind": "oigs"},
            "no kind of training rows is called 'oigs'; did you mean 'oig'",
        ),
        ("empty.jsonl", {}, "empty.jsonl: there are no rows in it"),
        (
            "a.jsonl,unknown.jsonl",
            {},
            "unknown.jsonl:1: it is of no known kind; its fields are 'q'",
        ),
        ("broken.jsonl", {}, "broken.jsonl:1: it is no JSON: Expecting value at column 1"),
    ],
)
def test_what_cannot_be_used_is_said_at_once(
    spec: str, options: dict[str, str], message: str
) -> None:
    numbers("a.jsonl", 3)
    Path("empty.jsonl").write_text("\n")
    Path("unknown.jsonl").write_text('{"q": "a"}\n')
    Path("broken.jsonl").write_text("oops\n")
    with pytest.raises(ValueError, match=message):
        open_rows(spec, **options)


def test_the_fingerprint_is_of_contents_kinds_and_weights() -> None:
    numbers("a.jsonl", 3)
    Path("a.jsonl.gz").write_bytes(gzip.compress(Path("a.jsonl").read_bytes()))
    numbers("b.jsonl", 3)
    prints = [
        open_rows(spec, kind, loss=loss).fingerprint()
        for spec, kind, loss in [
            ("a.jsonl", None, "answers"),
            ("a.jsonl.gz", "text", "answers"),
            ("a.jsonl:2", None, "answers"),
            ("b.jsonl", None, "answers"),
            ("a.jsonl", "oig", "answers"),
            ("a.jsonl", None, "all"),
        ]
    ]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 5
    assert len(prints[0]) == 32


def test_held_out_rows_are_not_trained_on_wherever_they_stand_again() -> None:
    write("a.jsonl", *(f"row {number % 40}" for number in range(100)))
    trained, held_out = split(open_rows("a.jsonl"), share=0.25)
    assert len(held_out) == 10
    kept = {row.text for row in held_out}
    assert len(kept) == 10
    left = [texts(trained, epoch) for epoch in range(2)]
    assert not kept & set(left[0])
    assert sorted(left[0]) == sorted(left[1])
    assert len(left[0]) == trained.n_rows == sum(1 for _ in trained.each())
    assert len(set(left[0]) | kept) == 40
    assert [texts(trained, 0, start) for start in (0, 7, 60)] == [
        left[0][start:] for start in (0, 7, 60)
    ]


def test_the_same_rows_are_held_out_in_whatever_order_they_stand() -> None:
    names = [f"row {number}" for number in range(100)]
    write("a.jsonl", *names)
    write("b.jsonl", *reversed(names))
    kept = [
        {row.text for row in split(open_rows(spec, seed=seed), n=20, seed=5)[1]}
        for spec, seed in [("a.jsonl", 0), ("b.jsonl", 1)]
    ]
    assert kept[0] == kept[1] and len(kept[0]) == 20
    assert {row.text for row in split(open_rows("a.jsonl"), n=20, seed=6)[1]} != kept[0]


@pytest.mark.parametrize(
    ("share", "n", "expected"),
    [(0.02, 200, 2), (0.5, 3, 3), (None, 80, 50), (0.001, None, 1), (0.0, None, 0), (None, 0, 0)],
)
def test_how_many_are_held_out(share: float | None, n: int | None, expected: int) -> None:
    numbers("a.jsonl", 100)
    trained, held_out = split(open_rows("a.jsonl"), share, n)
    assert (len(held_out), trained.n_rows) == (expected, 100 - expected)


def test_a_second_split_leaves_the_first_out_too() -> None:
    numbers("a.jsonl", 60)
    rest, first = split(open_rows("a.jsonl"), n=10)
    trained, second = split(rest, n=10)
    assert len({digest(row) for row in [*first, *second]}) == 20
    assert len(texts(trained)) == trained.n_rows == 40


def test_of_a_large_mixture_a_part_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_rows, "_N_SPLIT", 100)
    numbers("a.jsonl", 1000)
    trained, held_out = split(open_rows("a.jsonl"), n=10)
    assert (len(held_out), trained.n_rows) == (10, 900)
    assert not {row.text for row in held_out} & set(texts(trained))


def test_one_row_cannot_be_held_out() -> None:
    write("a.jsonl", "same", "same")
    trained, held_out = split(open_rows("a.jsonl"), n=1)
    assert (held_out, trained.n_rows) == ([], 2)


@pytest.mark.parametrize(
    ("share", "n", "message"),
    [
        (None, None, "say how many rows to hold out"),
        (0.6, None, r"share is 0.6; it must be in \[0, 0.5\]"),
        (None, -1, "n is -1; it must be 0 or more"),
    ],
)
def test_a_wrong_split_is_refused(share: float | None, n: int | None, message: str) -> None:
    numbers("a.jsonl", 3)
    with pytest.raises(ValueError, match=message):
        split(open_rows("a.jsonl"), share, n)
