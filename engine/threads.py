"""A small team of threads that run one kernel call together, and how many there should be."""

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


class Team:
    """n threads, the caller among them; the others sleep between calls."""

    def __init__(self, n_threads: int) -> None:
        self.n_threads = n_threads
        self._work: Callable[[int], object] | None = None
        self._gates = [threading.Lock() for _ in range(n_threads - 1)]
        for index, gate in enumerate(self._gates, start=1):
            gate.acquire()
            name = f"sparsechat-{index}"
            threading.Thread(target=self._wait, args=(index, gate), name=name, daemon=True).start()

    def run(self, work: Callable[[int], object]) -> object:
        """work(0) here and work(1) … on the others; they meet in the barriers of the work itself.

        work must not raise: a thread that stays away from a barrier leaves the others waiting.
        """
        self._work = work
        for gate in self._gates:
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
