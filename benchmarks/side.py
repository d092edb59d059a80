"""What both sides of a speed benchmark do alike, so that they are timed alike."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from benchmarks.machine import Background, memory
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

    def _run_all(self, token_ids: list[int]) -> None:
        """Like _run, but the logits after each token are ready."""
        raise NotImplementedError(f"{type(self).__name__} cannot run several tokens")

    def _fork(self, width: int) -> AbstractContextManager[Callable[[list[int]], None]]:
        """Beams that share all tokens, and what runs a token of each; forgotten at the end."""
        raise NotImplementedError(f"{type(self).__name__} has no beams")

    def decode(self, token_ids: list[int], position: int) -> dict[str, Any]:
        """One token at a time, from `position` on; the tokens before it are untimed."""
        self._go_to(position, token_ids)
        for token_id in token_ids[:_WARM]:
            self._run([token_id])
        self._truncate(position)

        def steps() -> None:
            for token_id in token_ids:
                self._run([token_id])

        return _timed(steps)

    def prefill(self, token_ids: list[int]) -> dict[str, Any]:
        """A whole prompt at once, from an empty cache."""
        self._truncate(0)
        self._run(token_ids[:_WARM])
        self._truncate(0)
        return _timed(lambda: self._run(token_ids))

    def several(self, token_ids: list[int], position: int, width: int) -> dict[str, Any]:
        """A step for each of token_ids: `width` tokens at `position` at once, a score after each.

        What the verification of a draft costs.
        """
        batch = (token_ids * width)[:width]
        self._go_to(position, token_ids)

        def steps(n: int) -> None:
            for _ in range(n):
                self._run_all(batch)
                self._truncate(position)

        steps(2)
        return _timed(lambda: steps(len(token_ids)))

    def beams(self, token_ids: list[int], position: int, width: int) -> dict[str, Any]:
        """A step for each of token_ids: one token of each of `width` beams from `position` on.

        One beam is plain decoding.
        """
        self._go_to(position, token_ids)

        def steps(ids: list[int]) -> None:
            with self._fork(width) if width > 1 else nullcontext(self._run) as run:
                for token_id in ids:
                    run([token_id] * width)
            self._truncate(position)

        steps(token_ids[:_WARM])
        return _timed(lambda: steps(token_ids))

    def memory(self) -> dict[str, Any]:
        """What is resident now and was at most, in bytes."""
        return {"memory": memory()}

    def _go_to(self, position: int, token_ids: list[int]) -> None:
        if missing := position - self._truncate(position):
            self._run((token_ids * (missing // len(token_ids) + 1))[:missing])

    def serve(self, *more: str) -> None:
        """Answer requests for the actions above and those named."""
        actions = ("load", "logits", "decode", "prefill", "several", "beams", "memory", *more)
        serve({name: getattr(self, name) for name in actions})


def _timed(work: Callable[[], None]) -> dict[str, Any]:
    with Background() as background:
        started = time.perf_counter()
        work()
        seconds = time.perf_counter() - started
    return {"seconds": seconds, "load": background.load}
