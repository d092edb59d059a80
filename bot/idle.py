"""What the engine does while nobody asks: finding out what the level `auto` means for a model."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from loguru import logger

from bot.worker import Worker

if TYPE_CHECKING:
    from engine import Model, Trial


class IdleTrial:
    """A trial in parts (engine.Trial), each a task of the worker.

    Whatever else the worker is given comes between two parts, so that an answer waits for some
    tenths of a second at most, and two seconds once.
    """

    def __init__(self, worker: Worker, model: Model) -> None:
        self.model = model
        self._worker = worker
        self._stop = threading.Event()
        self._trial: Trial | None = None
        self.is_running = True

    def start(self) -> None:
        """Begin behind what the worker has to do."""
        self._worker.submit(self._part)

    def stop(self) -> None:
        """After the part that is being made, if any."""
        self._stop.set()

    def _part(self) -> None:
        if self._stop.is_set() or self.model.adapter is not None:  # it is the weights that count
            self.is_running = False
            return
        import engine

        try:
            self._trial = self._trial or engine.Trial(self.model)
            if self._trial.step() < 1:
                self._worker.submit(self._part)
                return
            if not self._stop.is_set():
                self.model.set_sparsity("auto")
        except Exception:
            # nobody asked for it: the model stays dense, the log says why
            logger.exception("the trial of sparsity")
        self.is_running = False
