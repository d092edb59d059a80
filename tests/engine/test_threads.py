"""The team that runs kernel calls, and how many of its threads a call gets."""

from __future__ import annotations

import gc
import random
import threading
import time
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engine import threads
from engine.cores import MAX_THREADS
from engine.kernels import calls, simd, sync
from engine.kernels.compiler import kernel
from engine.threads import Pace, Team

NEVER = np.zeros(1, np.int64)
LINE = 16  # int64 numbers from one thread's count to the next


@kernel
def _count(thread, n_threads, cells, counts, cancel):
    counts[LINE * thread] += 1
    return 10 * n_threads + thread


@kernel
def count(cells, n_threads, counts, cancel):
    """One more in the count of every thread that takes part."""
    return calls.run(cells, n_threads, calls.bind(_count, (counts, cancel)))


@kernel
def _wait(thread, n_threads, cells, started, cancel):
    started[0] = 1
    while sync.load(simd.address_of(cancel)) == 0:
        sync.give_way()
    return 0


@kernel
def wait(cells, n_threads, started, cancel):
    """Compute until it is cancelled."""
    return calls.run(cells, n_threads, calls.bind(_wait, (started, cancel)))


class Counting:
    """A team and the calls that each of its threads took part in."""

    def __init__(self, n_threads: int) -> None:
        self.team = Team(n_threads)
        self._counts = np.zeros(LINE * MAX_THREADS, np.int64)

    def call(self, n_threads: int) -> Any:
        return self.team.run(count, n_threads, (self._counts,), NEVER)

    @property
    def counts(self) -> list[int]:
        return self._counts[::LINE][: self.team.n_threads].tolist()


class Waiting:
    """A call, on a thread of its own, that lasts until `end`."""

    def __init__(self, team: Team) -> None:
        started, self.cancel = np.zeros(1, np.int64), np.zeros(1, np.int64)
        work = lambda: team.run(wait, team.n_threads, (started,), self.cancel)  # noqa: E731
        self._thread = threading.Thread(target=work)
        self._thread.start()
        while not started[0]:
            time.sleep(0.001)

    def end(self) -> None:
        self.cancel[0] = 1
        self._thread.join()


def new_threads(before: set[threading.Thread]) -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t not in before and t.name.startswith("sparsechat")]


@pytest.mark.parametrize("n", [1, 2, 4])
def test_every_thread_runs_its_share_once_a_call(n: int) -> None:
    counting = Counting(n)
    for i in range(1, 100):
        assert counting.call(n) == 10 * n
        assert counting.counts == [i] * n
    counting.team.close()


def test_a_call_uses_as_many_threads_as_it_asks_for() -> None:
    counting = Counting(4)
    for n in (4, 1, 2, 3, 1, 4):
        assert counting.call(n) == 10 * n
    assert counting.counts == [6, 4, 3, 2]
    counting.team.close()


@pytest.mark.parametrize("n_looks", [1, 30, None])
def test_no_call_is_missed_whether_threads_spin_fall_asleep_or_sleep(
    monkeypatch: pytest.MonkeyPatch, n_looks: int | None
) -> None:
    """A thread that misses a call leaves the others waiting for it: this would never end."""
    if n_looks is not None:
        monkeypatch.setattr(threads, "_n_looks", lambda: n_looks)
    counting, pauses, n = Counting(3), random.Random(0), 3000
    for _ in range(n):
        counting.call(3)
        if pauses.random() < 0.3:
            until = time.perf_counter() + pauses.random() * (
                1e-4 if n_looks else 2 * threads.SPIN_S
            )
            while time.perf_counter() < until:
                pass
        elif pauses.random() < 0.02:
            time.sleep(1e-4)
    assert counting.counts == [n, n, n]
    counting.team.close()


def test_a_team_falls_asleep_after_a_call() -> None:
    counting = Counting(3)
    counting.call(3)
    used, deadline = 1.0, time.monotonic() + 10
    while used > 0.005 and time.monotonic() < deadline:
        before = time.process_time()
        time.sleep(0.1)
        used = time.process_time() - before
    assert used <= 0.005
    counting.team.close()


def test_a_team_changes_its_size_between_calls() -> None:
    before = set(threading.enumerate())
    counting = Counting(2)
    for n in (2, 5, 1, 3):
        counting.team.resize(n)
        assert (counting.team.n_threads, counting.call(n)) == (n, 10 * n)
        assert len(new_threads(before)) == n - 1
    counting.team.close()


@pytest.mark.parametrize("n", [0, -1, MAX_THREADS + 1])
def test_a_size_that_makes_no_sense_is_refused_and_changes_nothing(n: int) -> None:
    message = f"threads takes a whole number from 1 to {MAX_THREADS}, got {n}"
    with pytest.raises(ValueError, match=message):
        Team(n)
    counting = Counting(2)
    with pytest.raises(ValueError, match=message):
        counting.team.resize(n)
    assert counting.call(counting.team.n_threads) == 20
    counting.team.close()


def test_threads_start_with_the_first_call_that_needs_them_and_end_with_close() -> None:
    before = set(threading.enumerate())
    counting = Counting(4)
    counting.call(1)
    assert new_threads(before) == []
    counting.call(2)
    assert len(new_threads(before)) == 3
    counting.team.close()
    assert new_threads(before) == []
    assert counting.call(4) == 40  # they start again
    counting.team.close()


def test_threads_end_when_nobody_holds_the_team_any_more() -> None:
    before = set(threading.enumerate())
    counting = Counting(3)
    counting.call(3)
    started = new_threads(before)
    del counting
    gc.collect()
    for thread in started:
        thread.join(10)
    assert new_threads(before) == []


def test_a_second_thread_is_refused_while_a_call_is_under_way() -> None:
    counting = Counting(2)
    waiting = Waiting(counting.team)
    with pytest.raises(RuntimeError, match="this model computes for another thread"):
        counting.call(2)
    waiting.end()
    assert counting.call(2) == 20
    counting.team.close()


def test_a_new_size_waits_for_the_call_under_way() -> None:
    counting = Counting(2)
    waiting = Waiting(counting.team)
    resize = threading.Thread(target=counting.team.resize, args=(3,))
    resize.start()
    resize.join(0.05)
    assert resize.is_alive() and counting.team.n_threads == 2
    waiting.end()
    resize.join()
    assert counting.call(3) == 30
    counting.team.close()


def test_a_kernel_that_cannot_be_called_leaves_the_team_usable() -> None:
    counting = Counting(3)

    def broken(cells: int, n_threads: int, cancel: NDArray[np.int64]) -> None:
        raise TypeError("no such kernel")

    for _ in range(3):
        with pytest.raises(TypeError, match="no such kernel"):
            counting.team.run(broken, 3, (), NEVER)
        assert counting.call(3) == 30
    counting.team.close()


def run(pace: Pace, n_calls: int, all_ms: float, one_ms: float, kind: str = "token") -> list[int]:
    """The number of threads of each call, on a machine where calls take these times."""
    chosen = []
    for _ in range(n_calls):
        chosen.append(pace.n_threads)
        pace.record(kind, (one_ms if pace.n_threads == 1 else all_ms) / 1000)
    return chosen


def share_on_one(chosen: list[int]) -> float:
    return chosen.count(1) / len(chosen)


def test_all_threads_are_used_while_that_is_faster() -> None:
    assert share_on_one(run(Pace(2), 5000, 3.0, 5.0)) < 0.003


def test_a_first_prompt_is_read_on_all_threads() -> None:
    """Its calls are long, and one on a single thread would be seen."""
    assert set(run(Pace(2), 15, 80.0, 150.0, "chunk")) == {2}


def test_calls_of_seconds_are_tried_as_seldom_as_others() -> None:
    assert share_on_one(run(Pace(2), 400, 5000.0, 9500.0, "chunk")) < 0.06


def test_one_thread_takes_over_when_the_others_are_held_up() -> None:
    pace = Pace(2)
    run(pace, 50, 3.0, 5.0)
    assert share_on_one(run(pace, 5000, 20.0, 5.0)) > 0.99


def test_one_thread_takes_over_on_a_machine_that_was_busy_from_the_start() -> None:
    assert share_on_one(run(Pace(2), 5000, 20.0, 5.0)) > 0.99


def test_all_threads_come_back_when_the_machine_is_free_again() -> None:
    pace = Pace(2)
    run(pace, 50, 3.0, 5.0)
    run(pace, 2000, 20.0, 5.0)
    assert share_on_one(run(pace, 600, 3.0, 5.0)[400:]) < 0.05


def test_calls_that_are_late_now_and_then_change_nothing() -> None:
    pace, chosen = Pace(2), []
    for _ in range(100):
        chosen += run(pace, 50, 3.0, 5.0) + run(pace, 1, 10.0, 5.0)
    assert share_on_one(chosen) < 0.01


def test_one_thread_takes_over_where_each_is_late_now_and_then() -> None:
    """Beside two busy programs one thread loses its core too, only not as often."""
    pace, chosen = Pace(2), []
    run(pace, 50, 3.0, 5.0)
    for i in range(3000):
        chosen += run(pace, 1, 3.0 if i % 3 else 40.0, 5.0 if i % 5 else 12.0)
    assert share_on_one(chosen[100:]) > 0.9


def test_calls_of_many_kinds_are_compared_each_with_its_own() -> None:
    """A batch takes longer than a token; that is no sign of a busy machine."""
    pace = Pace(2)
    times = {"token": (3.0, 5.0), "draft": (6.0, 11.0), "chunk": (100.0, 190.0)}
    chosen = [n for _ in range(300) for kind in times for n in run(pace, 1, *times[kind], kind)]
    assert share_on_one(chosen) < 0.03
    busy = [
        n
        for _ in range(300)
        for kind, (all_ms, one_ms) in times.items()
        for n in run(pace, 1, 6 * all_ms, one_ms, kind)
    ]
    assert share_on_one(busy) > 0.9


def test_a_kind_that_is_new_while_the_machine_is_busy_runs_on_one_thread() -> None:
    pace = Pace(2)
    run(pace, 50, 3.0, 5.0)
    run(pace, 500, 20.0, 5.0)
    assert run(pace, 1, 90.0, 30.0, "draft") == [1]
    assert share_on_one(run(pace, 500, 20.0, 5.0)) > 0.98


def test_a_longer_text_is_not_taken_for_a_busy_machine() -> None:
    pace, chosen = Pace(2), []
    for i in range(3000):
        longer = 1 + i / 1000
        chosen += run(pace, 1, 3.0 * longer, 5.0 * longer)
    assert share_on_one(chosen) < 0.01


def test_one_thread_has_no_choice() -> None:
    assert set(run(Pace(1), 100, 3.0, 3.0)) == {1}
