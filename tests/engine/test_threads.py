"""How many threads, and the team that runs them."""

from __future__ import annotations

import os
import threading

import pytest

from engine.threads import Pace, Team, default_threads


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
        assert team.run(lambda index, call=call: work(call, index), n) == "result of 0"
    assert sorted(seen) == [(call, index) for call in range(20) for index in range(n)]
    team.close()


def run(pace: Pace, n_calls: int, all_s: float, one_s: float) -> list[int]:
    """The number of threads of each call, on a machine where calls take these times."""
    chosen = []
    for _ in range(n_calls):
        chosen.append(pace.n_threads)
        pace.record(one_s if pace.n_threads == 1 else all_s)
    return chosen


def test_a_team_runs_on_as_many_threads_as_a_call_asks_for() -> None:
    team = Team(3)
    seen: list[int] = []
    team.run(seen.append, 1)
    assert seen == [0]
    team.close()


def test_all_threads_are_used_while_calls_take_what_they_usually_do() -> None:
    pace = Pace(2)
    assert set(run(pace, 1000, 3.0, 5.0)) == {2}


def test_one_thread_takes_over_when_the_others_are_held_up() -> None:
    pace = Pace(2)
    run(pace, 50, 3.0, 5.0)
    busy = run(pace, 2000, 20.0, 5.0)
    assert busy.count(2) < 0.04 * len(busy)


def test_all_threads_come_back_when_the_machine_is_free_again() -> None:
    pace = Pace(2)
    run(pace, 50, 3.0, 5.0)
    run(pace, 2000, 20.0, 5.0)
    assert set(run(pace, 600, 3.0, 5.0)[520:]) == {2}


def test_a_longer_text_is_not_taken_for_a_busy_machine_for_long() -> None:
    pace = Pace(2)
    chosen = []
    for i in range(3000):
        chosen.append(pace.n_threads)
        pace.record((5.0 if pace.n_threads == 1 else 3.0) * (1 + i / 1000))
    assert chosen.count(1) < 0.02 * len(chosen)


def test_one_thread_has_no_choice() -> None:
    assert set(run(Pace(1), 100, 3.0, 3.0)) == {1}
