"""The arithmetic of drafts, on numbers written by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import sparse_drafts
from benchmarks.sparse_settings import Setting
from benchmarks.sparse_texts import Text

# seconds: a dense step takes 2, a sparse one 1
TOOK = {"call of 1": [2.0, 2.0], "call of 2": [3.0, 3.0], "call of 4": [4.0, 4.0],
        "call of 8": [9.0, 9.0], "fast": [1.0, 1.0]}  # fmt: skip


def test_speed_is_tokens_over_the_dense_steps_of_a_cycle() -> None:
    row = sparse_drafts.speed_row("fast drafts 3, chat", 2, TOOK, "fast", 3, n_accepted=1.5)
    # three sparse steps of half a dense one, and a call of 4 that takes two
    assert row.ours == [pytest.approx(2.5 / 3.5)] * 2
    assert row.extra["at_best"] == pytest.approx(4 / 3.5)
    assert (row.extra["draft_step"], row.extra["verification"]) == (0.5, 2.0)


def test_a_shorter_draft_has_at_most_its_length_accepted() -> None:
    rows = sparse_drafts.rows_of(2, TOOK, {"fast": {"chat": [[7, 0], [2, 3]]}})
    shares = {row.case: row.ours[0] for row in rows if row.metric == "accepted drafts"}
    assert shares == {
        "fast drafts 1, chat": 3 / 4,
        "fast drafts 3, chat": pytest.approx((3 + 0 + 2 + 3) / 4 / 3),
        "fast drafts 7, chat": pytest.approx((7 + 0 + 2 + 3) / 4 / 7),
    }
    times = {row.case: row.ours[0] for row in rows if row.metric == "time"}
    assert times == {"call of 2": 1.5, "call of 4": 2.0, "call of 8": 4.5, "fast": 0.5}


def test_random_weights_take_the_acceptance_of_another_models_rows() -> None:
    measured = [
        row.as_json()
        for row in sparse_drafts.rows_of(2, TOOK, {"fast": {"chat": [[7, 0], [2, 3]]}})
    ]
    rows = sparse_drafts.rows_with(1, TOOK, measured)
    speeds = [row.ours[0] for row in rows if row.metric == "speed with drafts"]
    assert speeds == pytest.approx([1.75 / 2, 3 / 3.5, 4 / 8], rel=1e-3)  # rounded in the result
    assert not [row for row in rows if row.metric == "accepted drafts"]


def test_accepted_tokens_end_at_the_first_that_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    drafts = {3: [1, 2, 3], 4: [1, 9, 3], 5: [9, 2, 3]}
    monkeypatch.setattr(
        sparse_drafts, "_greedy", lambda model, ids, places: [drafts[at] for at in places]
    )
    setting = Setting("fast", lambda model: None)
    model: Any = SimpleNamespace()
    text = Text("chat", [0] * 8, 3)
    found = sparse_drafts._accepted(model, setting, text, [3, 4, 5], [[1, 2, 3]] * 3)
    assert found == [3, 1, 0]
