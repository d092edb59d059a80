from __future__ import annotations

import threading

import pytest

from bot.worker import Worker


def test_work_runs_in_order_on_one_thread_that_is_not_this_one() -> None:
    worker, seen = Worker(), []
    futures = [worker.submit(lambda n=n: seen.append((n, threading.get_ident()))) for n in range(3)]
    for future in futures:
        future.result(10)
    assert [n for n, _ in seen] == [0, 1, 2]
    assert len({ident for _, ident in seen}) == 1
    assert seen[0][1] != threading.get_ident()
    assert worker.close(10)


def test_an_error_is_the_futures_and_the_thread_goes_on() -> None:
    worker = Worker()
    with pytest.raises(ZeroDivisionError):
        worker.submit(lambda: 1 // 0).result(10)
    assert worker.submit(lambda: "fine").result(10) == "fine"
    assert worker.close(10)


def test_close_says_when_the_thread_still_computes() -> None:
    worker, release = Worker(), threading.Event()
    worker.submit(release.wait)
    assert not worker.close(0.01)
    release.set()
    assert worker.close(10)
