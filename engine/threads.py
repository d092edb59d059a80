"""A small team of threads that run one kernel call together, and how many of them should."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable
from pathlib import Path


def default_threads() -> int:
    """The cores that this process may use, by affinity and by a container's quota."""
    if hasattr(os, "sched_getaffinity"):
        n = len(os.sched_getaffinity(0))
    else:
        n = os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            n = min(n, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):
        pass
    return max(1, n)


class Pace:
    """How many threads the next call should use: all, or one while the other cores are busy.

    Threads meet at every step of a layer, so one that lost its core to another program holds up the
    rest, and two can take longer than one. What calls took decides; their results are the same bits
    either way.
    """

    SUSPICION = 1.3  # so much slower than usual makes one thread worth a try
    TRIAL = 3  # calls
    STRETCH = 32, 512  # calls on one thread before all are tried again: at first, at most

    def __init__(self, n_threads: int) -> None:
        self._all = n_threads
        self._took = {1: math.inf, n_threads: math.inf}  # seconds of a call, of late
        self._usual = math.inf  # of a call on all threads
        self._stretch = self.STRETCH[0]
        self._phase, self._left, self._is_fresh = "all", 1, True

    @property
    def n_threads(self) -> int:
        """For the next call."""
        return 1 if self._phase in ("try one", "one") else self._all

    def record(self, seconds: float) -> None:
        """What the call took."""
        n = self.n_threads
        self._took[n] = seconds if self._is_fresh else 0.3 * seconds + 0.7 * self._took[n]
        self._is_fresh = False
        self._left -= 1
        if self._left <= 0 and self._all > 1:
            self._decide()

    def _decide(self) -> None:
        one, all_ = self._took[1], self._took[self._all]
        if self._phase == "all":
            self._usual = min(self._usual, all_)
            if all_ > self.SUSPICION * self._usual:
                self._enter("try one", self.TRIAL)
        elif self._phase == "try one" and one < all_:
            self._enter("one", self._stretch)
        elif self._phase == "one":
            self._enter("try all", self.TRIAL)
        elif self._phase == "try all" and one < all_:
            self._stretch = min(2 * self._stretch, self.STRETCH[1])
            self._enter("one", self._stretch)
        else:  # all are the better choice after all; a longer text may have made calls slower
            self._usual, self._stretch = all_, self.STRETCH[0]
            self._enter("all")

    def _enter(self, phase: str, n_calls: int = 1) -> None:
        self._phase, self._left, self._is_fresh = phase, n_calls, True


class Team:
    """n threads at most, the caller among them; the others sleep between calls."""

    def __init__(self, n_threads: int) -> None:
        self.n_threads = n_threads
        self._work: Callable[[int], object] | None = None
        self._gates = [threading.Lock() for _ in range(n_threads - 1)]
        for index, gate in enumerate(self._gates, start=1):
            gate.acquire()
            name = f"sparsechat-{index}"
            threading.Thread(target=self._wait, args=(index, gate), name=name, daemon=True).start()

    def run(self, work: Callable[[int], object], n_threads: int) -> object:
        """work(0) here, work(1) … on n_threads - 1 others; they meet in the work's own barriers.

        work must not raise: a thread that stays away from a barrier leaves the others waiting.
        """
        self._work = work
        for gate in self._gates[: n_threads - 1]:
            gate.release()
        return work(0)

    def close(self) -> None:
        """End the threads; the team cannot run again."""
        self._work = None
        for gate in self._gates:
            gate.release()
        self._gates = []

    def _wait(self, index: int, gate: threading.Lock) -> None:
        while gate.acquire() and (work := self._work) is not None:
            work(index)
