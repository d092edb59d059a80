"""Ctrl-C, decided in one place.

While something computes, a press sets that work's cancel flag and nothing else: no exception flies
through the conversation. While a line is read it raises KeyboardInterrupt, which the caller of the
reader expects. Between the two it does nothing. A third press during one answer gives up on an
engine that does not stop.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Protocol

PATIENCE = 3


class Flag(Protocol):
    """engine.Cancel, or an Event."""

    def set(self) -> None: ...


class Interrupts:
    """The handler of SIGINT while this is entered (main thread only; elsewhere it does nothing)."""

    def __init__(self) -> None:
        self._flag: Flag | None = None
        self._presses = 0
        self._reads = False
        self._before: Any = None

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._pressed)
        return self

    def __exit__(self, *error: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None

    @contextmanager
    def cancelling(self, flag: Flag) -> Iterator[None]:
        """A press sets `flag`; the third raises KeyboardInterrupt."""
        self._flag, self._presses = flag, 0
        try:
            yield
        finally:
            self._flag = None

    @contextmanager
    def raising(self) -> Iterator[None]:
        """A press raises KeyboardInterrupt, as Python does by itself."""
        self._reads = True
        try:
            yield
        finally:
            self._reads = False

    def _pressed(self, number: int, frame: FrameType | None) -> None:
        if self._flag is not None:
            self._presses += 1
            self._flag.set()
            if self._presses >= PATIENCE:
                raise KeyboardInterrupt
        elif self._reads:
            raise KeyboardInterrupt
