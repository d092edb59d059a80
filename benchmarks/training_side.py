"""What the sides of a training benchmark do alike: a loop that goes on by a step when it is asked.

A training loop is the program's own, ours or TRL's, from its first line to its last. It runs on a
thread and waits before each step, so that two sides can be asked in turns. Only the standard
library: peers load this file in their own environments too.
"""

from __future__ import annotations

import threading
import time
import traceback
from abc import ABC
from collections.abc import Callable
from queue import Queue
from typing import Any, NamedTuple

from benchmarks.machine import Background, memory
from benchmarks.process import serve


class Stopped(BaseException):
    """Raised in the loop when no more steps are wanted."""


class Made(NamedTuple):
    """A step of the loop: seconds from when it was let go to its end; loss in nats a label."""

    seconds: float
    n_tokens: int
    loss: float


class Loop:
    """A function on a thread that calls `wait` before each step and `made` behind it."""

    def __init__(self, work: Callable[[Loop], None]) -> None:
        self._work = work
        self._go: Queue[bool] = Queue()
        self._told: Queue[Made | Exception | None] = Queue()
        self._began = 0.0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._work(self)
        except Stopped:
            pass
        except Exception as error:
            traceback.print_exc()
            self._told.put(error)
        self._told.put(None)

    def wait(self) -> None:
        """The loop's: until the next step is wanted."""
        self._told.put(Made(0, 0, 0))
        if not self._go.get():
            raise Stopped
        self._began = time.perf_counter()

    def made(self, n_tokens: int, loss: float) -> None:
        """The loop's: a step is over."""
        self._told.put(Made(time.perf_counter() - self._began, n_tokens, loss))

    def ready(self) -> None:
        """Return when the loop waits for its first step."""
        self._next()

    def step(self) -> Made:
        """Let it make one. RuntimeError when it has ended."""
        self._go.put(True)
        made = self._next()
        self._next()  # it waits again, or has ended
        return made

    def stop(self) -> None:
        """End the loop in the middle."""
        self._go.put(False)
        self._thread.join()

    def _next(self) -> Made:
        told = self._told.get()
        if isinstance(told, Exception):
            raise told
        if told is None:
            self._told.put(None)
            return Made(0, 0, float("nan"))
        return told


class TrainingSide(ABC):
    """A process that trains; its public methods are the actions of a driver."""

    _loop: Loop

    def steps(self, n: int) -> dict[str, Any]:
        """Make n steps: [seconds, tokens, loss] of each, and what else used the processor."""
        with Background() as background:
            made = [self._loop.step() for _ in range(n)]
        return {"steps": made, "load": background.load}

    def memory(self) -> dict[str, Any]:
        """What is resident now and was at most, in bytes."""
        return {"memory": memory()}

    def serve(self, *more: str) -> None:
        """Answer requests for the actions above and those named."""
        serve({name: getattr(self, name) for name in ("steps", "memory", *more)})
