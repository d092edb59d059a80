"""Where answers differ first."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

import engine
from benchmarks import sparse_answers
from benchmarks.sparse_settings import Setting

MODEL: Any = SimpleNamespace(cache=SimpleNamespace(truncate=lambda n: None))
PARAMS = engine.SamplingParams()


class Answer:
    """A generation that gives these tokens."""

    def __init__(self, *token_ids: int) -> None:
        self._left, self.token_ids = list(token_ids), list[int]()

    def __iter__(self) -> Answer:
        return self

    def __next__(self) -> None:
        if not self._left:
            raise StopIteration
        self.token_ids.append(self._left.pop(0))


@pytest.mark.parametrize(
    ("sparse", "first"),
    [((1, 2, 3), None), ((1, 5, 3), 1), ((4, 2, 3), 0), ((1, 2), 2), ((1, 2, 3, 4), 3)],
)
def test_the_first_difference_of_two_answers(
    monkeypatch: pytest.MonkeyPatch, sparse: tuple[int, ...], first: int | None
) -> None:
    monkeypatch.setattr(engine, "stream", lambda *arguments: Answer(*sparse))
    setting = Setting("fast", lambda model: None)
    assert sparse_answers._first(MODEL, setting, [7], PARAMS, [1, 2, 3]) == first


def test_share_of_identical_answers_and_the_rate_of_differences() -> None:
    row = sparse_answers.row_of("fast, greedy", 2, [(10, None), (20, 4), (10, None), (8, 6)])
    assert row.ours == [0.5]
    assert row.extra["first_difference_median"] == 5
    assert row.extra["tokens"] == 12
    # of 10, 5, 10 and 7 tokens that were compared, two differed
    assert row.extra["differences_a_token"] == 2 / 32
    assert row.extra["ours_low"] < 0.5 < row.extra["ours_high"] <= 1
