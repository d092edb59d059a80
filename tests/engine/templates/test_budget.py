"""The budget of one rendering."""

from __future__ import annotations

import pytest

from engine.templates import _budget
from engine.templates._budget import Budget, RunawayTemplateError


def test_the_deadline_ends_what_counting_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(_budget.time, "monotonic", lambda: clock[0])
    budget = Budget(0)
    clock[0] += _budget.DEADLINE_S - 0.1
    budget.step()
    clock[0] += 0.2
    with pytest.raises(RunawayTemplateError, match="takes longer than 5 seconds"):
        budget.step()


def test_sizes_count_what_is_inside_as_often_as_it_is() -> None:
    budget = Budget(0)
    item = _budget.ITEM_SIZE
    assert budget.size("abc") == item + 3
    assert budget.size(["abc", "abc"]) == 3 * item + 6
    assert budget.size({"ab": ("c", 5)}) == 5 * item + 3


def test_counting_ends_soon_after_the_limit() -> None:
    budget, nested = Budget(0), ["x"]
    for _ in range(200):
        nested = [nested, nested]
    assert budget.max_size < budget.size(nested) < budget.max_size + 1000


def test_a_long_conversation_has_more_to_spend() -> None:
    text = "a" * (_budget.MAX_SIZE + 1)
    with pytest.raises(RunawayTemplateError, match=r"a value of 4,000,001 characters"):
        Budget(0).checked(text)
    assert Budget(len(text)).checked(text) is text


def test_work_adds_up() -> None:
    budget = Budget(0)
    text = "a" * 1_000_000
    for _ in range(64):
        budget.checked(text)
    with pytest.raises(RunawayTemplateError, match="more than 64,000,000 characters of text"):
        budget.checked(text)
