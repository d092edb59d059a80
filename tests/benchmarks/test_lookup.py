"""Rounds with and without drafts: alternating, equal, undisturbed."""

from __future__ import annotations

from typing import Any

import pytest

import engine
from benchmarks import lookup, machine

CASE = lookup.Case("a case", "lookup", "{} What?", ("notes",), engine.SamplingParams())


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> tuple[list[bool], dict[int, Any]]:
    """Which answers were asked for, with lookup or without; tokens and loads of some, by number."""
    asked: list[bool] = []
    changes: dict[int, Any] = {}

    def answer(model: Any, token_ids: list[int], params: engine.SamplingParams) -> lookup.Answer:
        asked.append(params.lookup)
        tokens, foreign = changes.get(len(asked), ([1, 2], 0.0))
        return lookup.Answer(tokens, engine.Usage(), machine.Load(foreign, 0.0))

    monkeypatch.setattr(lookup, "answer", answer)
    monkeypatch.setattr(lookup, "prompt_ids", lambda model, case: [1])
    return asked, changes


def rounds(n: int, spare: int = 0) -> list[Any]:
    return list(lookup.rounds(None, CASE, n, spare))  # type: ignore[arg-type]


def test_who_goes_first_changes_and_the_first_round_is_not_counted(
    played: tuple[list[bool], dict[int, Any]],
) -> None:
    assert len(rounds(2)) == 2
    assert played[0] == [False, True, True, False, False, True]


def test_a_disturbed_round_is_made_again_as_often_as_is_allowed(
    played: tuple[list[bool], dict[int, Any]],
) -> None:
    asked, changes = played
    changes |= {n: ([1, 2], 50.0) for n in (3, 5, 7)}
    found = rounds(2, spare=2)
    assert len(asked) == 2 + 2 * 4
    assert [answers[0].load.foreign_percent for answers in found] == [50.0, 0.0]


def test_another_answer_with_drafts_ends_the_benchmark(
    played: tuple[list[bool], dict[int, Any]],
) -> None:
    played[1][4] = ([1, 3], 0.0)
    with pytest.raises(SystemExit, match="a case: lookup changed the answer"):
        rounds(3)


def test_a_rate_leaves_out_the_token_that_the_prompt_gave() -> None:
    usage = engine.Usage(new_tokens=11, prefill_s=2, time_to_first_token_s=2.5, decode_s=1.5)
    assert lookup.Answer([], usage, machine.Load(0, 0)).rate == 10
