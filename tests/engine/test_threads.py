"""How many threads, and the team that runs them."""

from __future__ import annotations

import os
import threading

import pytest

from engine.threads import Team, default_threads


def test_the_default_follows_the_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3}, raising=False)
    assert default_threads() == 1


@pytest.mark.parametrize("n", [1, 2, 4])
def test_every_thread_runs_the_work_once_a_call(n: int) -> None:
    team = Team(n)
    meeting = threading.Barrier(n)
    seen: list[tuple[int, int]] = []

    def work(call: int, index: int) -> str:
        seen.append((call, index))
        meeting.wait(timeout=10)
        return f"result of {index}"

    for call in range(20):
        assert team.run(lambda index, call=call: work(call, index)) == "result of 0"
    assert sorted(seen) == [(call, index) for call in range(20) for index in range(n)]
    team.close()
