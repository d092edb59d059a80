"""What both sides of a speed benchmark do alike, so that they are timed alike."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import Any

from benchmarks.machine import Background
from benchmarks.process import serve

_WARM = 8  # tokens before the clock starts: the other side has just filled the processor's caches


class Side(ABC):
    """A model with one conversation; its public methods are the actions of a driver process."""

    @abstractmethod
    def load(self, path: str, threads: int, **options: Any) -> dict[str, Any]:
        """Open the model and run one token; seconds of each part apart."""

    @abstractmethod
    def logits(self, token_ids: list[int], into: str) -> dict[str, Any]:
        """Scores after each token, (T, vocab_size) float32, into an .npy file."""

    @abstractmethod
    def _run(self, token_ids: list[int]) -> None:
        """Append tokens; the logits after the last one are ready when this returns."""

    @abstractmethod
    def _truncate(self, position: int) -> int:
        """Forget the tokens from `position` on; how many are left."""

    def decode(self, token_ids: list[int], position: int) -> dict[str, Any]:
        """One token at a time, from `position` on; the tokens before it are untimed."""
        if missing := position - self._truncate(position):
            self._run((token_ids * (missing // len(token_ids) + 1))[:missing])
        for token_id in token_ids[:_WARM]:
            self._run([token_id])
        self._truncate(position)
        with Background() as background:
            started = time.perf_counter()
            for token_id in token_ids:
                self._run([token_id])
            seconds = time.perf_counter() - started
        return {"seconds": seconds, "load": background.load}

    def prefill(self, token_ids: list[int]) -> dict[str, Any]:
        """A whole prompt at once, from an empty cache."""
        self._truncate(0)
        self._run(token_ids[:_WARM])
        self._truncate(0)
        with Background() as background:
            started = time.perf_counter()
            self._run(token_ids)
            seconds = time.perf_counter() - started
        return {"seconds": seconds, "load": background.load}

    def serve(self, *more: str) -> None:
        """Answer requests for the actions above and those named."""
        actions = ("load", "decode", "prefill", "logits", *more)
        serve({name: getattr(self, name) for name in actions})
