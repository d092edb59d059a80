"""A small team of threads that run one kernel call together, and how many of them should."""

from __future__ import annotations

import atexit
import math
import os
import queue
import threading
import time
import weakref
from collections.abc import Callable, Hashable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from engine.cores import MAX_THREADS
from engine.kernels.calls import serve
from engine.kernels.sync import n_cells

# How long a thread looks for the next call before it sleeps: longer than the time between two
# tokens. To be woken costs a call 20 to 40 µs.
SPIN_S = 0.5e-3
_LEAVE_S = 2.0  # at exit, for a call that was cancelled


class Pace:
    """How many threads the next call should use: all, or one while the other cores are busy.

    Threads meet at every step of a layer, so one that lost its core to another program holds up the
    rest, and two can take longer than one. What calls took decides: the other choice is tried from
    time to time, and at once when all threads get slower. The results are the same bits either way.
    """

    TRIAL = 3  # calls
    MEMORY = 10  # calls that a mean goes back: one that is late says little
    SUSPICION = 1.3  # a ratio that says enough
    GAIN = 1.1  # a ratio that is worth a change
    SOON_S, LATE_S = 0.1, (1.6, 6.4)  # from one trial to the next; LATE_S on one thread, on all
    RARE = 20  # calls from one trial to the next, at least: a long call is a dear trial

    def __init__(self, n_threads: int) -> None:
        self._all = n_threads
        self._chosen, self._is_trial = n_threads, False
        self._reference: dict[Hashable, float] = {}  # seconds of a call of a kind, at its quickest
        self._slowness = {1: math.inf, n_threads: 1.0}  # how many times that, of late
        self._n_heard = self.MEMORY  # calls in the mean of n_threads
        self._level = 1.0  # slowness of all threads that is nothing new
        self._wait_s, self._since_s = self.SOON_S, 0.0  # from the last trial, to the next and now

    @property
    def n_threads(self) -> int:
        """For the next call."""
        if not self._is_trial:
            return self._chosen
        return self._all if self._chosen == 1 else 1

    def record(self, kind: Hashable, seconds: float) -> None:
        """What the call took; calls of one kind have the same work to do, nearly."""
        if self._all == 1:
            return
        self._hear(seconds / self._reference.setdefault(kind, seconds))
        if seconds < self._reference[kind]:
            self._reference[kind] = 0.3 * seconds + 0.7 * self._reference[kind]
        if self._is_trial:
            self._judge()
            return
        self._since_s += seconds
        slowness = self._slowness[self._all]
        self._level = min(self._level, slowness)
        if self._chosen != 1 and slowness > self.SUSPICION * self._level:
            self._wait_s = self.SOON_S
        if self._since_s > max(self._wait_s, self.RARE * seconds):
            self._is_trial, self._n_heard = True, 0

    def _hear(self, slowness: float) -> None:
        self._n_heard = min(self._n_heard + 1, self.MEMORY)
        before = self._slowness[self.n_threads] if self._n_heard > 1 else slowness
        self._slowness[self.n_threads] = before + (slowness - before) / self._n_heard

    def _judge(self) -> None:
        """End the trial when it says enough."""
        tried, chosen = self._slowness[self.n_threads], self._slowness[self._chosen]
        if self._n_heard < self.TRIAL and tried <= self.SUSPICION * chosen:
            return
        if self.GAIN * tried < chosen:
            self._chosen, self._wait_s = self.n_threads, self.SOON_S
        else:
            self._wait_s = min(2 * self._wait_s, self.LATE_S[self._chosen != 1])
        self._is_trial, self._since_s, self._n_heard = False, 0.0, self.MEMORY
        self._level = self._slowness[self._all]


class _Shared:
    """What a team and its workers see of each other; cells is an address."""

    def __init__(self, n_threads: int) -> None:
        self._cells = np.zeros(n_cells(n_threads), np.int64)
        self.cells = self._cells.ctypes.data
        self.n_called = 0  # threads of the call that is under way or about to be


class _Worker:
    """One thread that serves a team's calls: it spins for SPIN_S after each, then sleeps."""

    def __init__(self, shared: _Shared, index: int) -> None:
        self._shared, self._index = shared, index
        self._sleeps = False
        self._bell: queue.SimpleQueue[bool] = queue.SimpleQueue()  # False = end
        self._thread = threading.Thread(target=self._work, name=f"sparsechat-{index}", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Serve the call that _Shared.n_called tells of."""
        if self._sleeps:
            self._sleeps = False
            self._bell.put(True)

    def end(self) -> None:
        """Leave as soon as no call is under way."""
        self._bell.put(False)

    def join(self) -> None:
        """Wait for the end."""
        self._thread.join(_LEAVE_S)

    def _work(self) -> None:
        shared, n_seen = self._shared, 0
        while True:
            # in this order, and a call's in the other: it sees us asleep, or we see it. Python's
            # lock keeps both orders. A bell too many only makes us look once more.
            self._sleeps = True
            if shared.n_called <= self._index and not self._bell.get():
                return
            self._sleeps = False
            n_seen = serve(shared.cells, self._index, n_seen, _n_looks())


class Team:
    """n threads at most, the caller among them.

    The others start with the first call that needs them, in a forked process too. They end with
    the team, and before Python ends: a call that a daemon thread is in is cancelled then.
    """

    def __init__(self, n_threads: int) -> None:
        self._workers: list[_Worker] = []
        self._cancel: NDArray[np.int64] | None = None
        self._reset()
        self.resize(n_threads)
        weakref.finalize(self, _dismiss, self._workers).atexit = False
        _teams.add(self)

    @property
    def n_threads(self) -> int:
        """At most, in one call."""
        return self._n_threads

    def resize(self, n_threads: int) -> None:
        """Use at most n_threads from the next call on; ValueError outside 1 … MAX_THREADS."""
        if not 1 <= n_threads <= MAX_THREADS:
            raise ValueError(
                f"threads takes a whole number from 1 to {MAX_THREADS}, got {n_threads}"
            )
        self.close()
        self._n_threads = n_threads

    def run(
        self,
        kernel: Callable[..., object],
        n_threads: int,
        arguments: tuple[object, ...],
        cancel: NDArray[np.int64],
    ) -> object:
        """kernel(cells, n_threads, *arguments, cancel) and its result.

        kernel  hands work to engine.kernels.calls.run on n_threads with these cells
        cancel  int64 (1,): soon after it is not 0, the kernel ends
        RuntimeError when another thread is in a call.
        """
        if self._busy.locked():
            _end_if_leaving()  # _leave may be what holds it
            raise RuntimeError("this model computes for another thread; load it once for each")
        with self._busy:
            self._cancel = cancel
            try:
                _end_if_leaving()
                if n_threads > 1:
                    self._call(n_threads)
                result = kernel(self._shared.cells, n_threads, *arguments, cancel)
                _end_if_leaving()
                return result
            finally:
                self._shared.n_called, self._cancel = 0, None

    def close(self) -> None:
        """End the threads, after the call under way; another call starts them again."""
        with self._busy:
            workers = list(self._workers)
            _dismiss(self._workers)
            for worker in workers:
                worker.join()

    def _call(self, n_threads: int) -> None:
        """See to it that the workers look for a call."""
        if not self._workers:
            _n_looks()
            self._shared = _Shared(self._n_threads)
            self._workers += [_Worker(self._shared, i) for i in range(1, self._n_threads)]
        self._shared.n_called = n_threads
        for worker in self._workers[: n_threads - 1]:
            worker.wake()

    def _reset(self) -> None:
        """No threads and no call; also what a forked process has."""
        self._busy = threading.Lock()
        self._cancel = None
        self._shared = _Shared(1)
        self._workers.clear()

    def _leave(self) -> None:
        if (cancel := self._cancel) is not None:
            cancel[0] = 1
        if self._busy.acquire(timeout=_LEAVE_S):
            self._busy.release()
            self.close()


def _dismiss(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.end()
    workers.clear()


@cache
def _n_looks() -> int:
    """How many looks for a call take SPIN_S."""
    n, took, shared = 2000, math.inf, _Shared(2)
    for _ in range(4):  # the first compiles
        started = time.perf_counter()
        serve(shared.cells, 1, 0, n)
        took = min(took, time.perf_counter() - started)
    return int(n * SPIN_S / took)


_teams: weakref.WeakSet[Team] = weakref.WeakSet()
_leaving = threading.Event()


def _leave() -> None:
    """Before Python ends: afterwards it stops threads wherever they are, inside kernels too."""
    _leaving.set()
    for team in list(_teams):
        team._leave()


def _end_if_leaving() -> None:
    if _leaving.is_set():
        raise SystemExit  # ends a daemon thread without a word


def _forked() -> None:
    """In the new process: threads did not come along, and locks may be held by those."""
    for team in list(_teams):
        team._reset()


atexit.register(_leave)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
