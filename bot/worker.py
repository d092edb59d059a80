"""One thread for everything that computes: loading the model, reading prompts, decoding.

The main thread stays free to hear Ctrl-C: Python runs signal handlers there only, and only between
bytecodes, so that a kernel called from it could not be stopped. One thread, not one per answer,
because the kernels' thread pools belong to the thread that called first.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

Result = TypeVar("Result")


class Worker:
    """Runs what is submitted, one after the other, on a daemon thread."""

    def __init__(self, name: str = "engine") -> None:
        self._tasks: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None]
        self._tasks = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[], Result]) -> Future[Result]:
        """Queue `work`; its result or exception is in the future."""
        future: Future[Result] = Future()
        self._tasks.put((work, future))
        return future

    def close(self, timeout_s: float) -> bool:
        """Take no more work; True when the thread ended in time, False when it still computes."""
        self._tasks.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            work, future = task
            try:
                result = work()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)
            del work, future, task  # a loaded model must not live until the next task comes
