"""Ctrl-C while a model is trained: the first press lets the step end and saves, a second one ends
at once. A run that the system asks to end (SIGTERM) does what the first press does."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from bot import render

_NOTE = "finishing this step, then saving; Ctrl-C again stops at once"


class Stopping:
    """The handler while this is entered (main thread only; elsewhere it does nothing)."""

    def __init__(self) -> None:
        self.is_asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stopping:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._heard)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def should_stop(self) -> bool:
        """What the loop asks after each step."""
        return self.is_asked

    def _heard(self, number: int, frame: FrameType | None) -> None:
        if self.is_asked:
            raise KeyboardInterrupt
        self.is_asked = True
        render.urgent(_NOTE)
