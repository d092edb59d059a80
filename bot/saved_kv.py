"""What a saved conversation need not compute again: on disk after /save, read back after /load.

Only what the session's file tells is kept: turns that nobody saved leave nothing on the disk. Files
are written behind the prompt, when a conversation is saved and after a turn that had to compute it
again, so that leaving has nothing left to do.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING

from loguru import logger

from bot import sessions
from bot.interrupts import Interrupts
from bot.loading import POLL_S
from bot.worker import Worker

if TYPE_CHECKING:
    from engine import Model, SavedCaches

FINISH_S = 5.0  # 2,000 tokens of SmolLM2-135M are written in 0.06 to 0.25 s


class SavedKV:
    """The caches of sessions, by the sessions' names."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._writing: Future[None] | None = None

    def keep(self, name: str, model: Model, token_ids: Sequence[int], limit_mb: int) -> None:
        """Have the beginning of token_ids, as far as the model's cache holds it, written.

        limit_mb  for all files together; with 0 they all go
        """
        if limit_mb:
            self._submit(lambda: _store().keep(name, model, token_ids, limit_mb * 1_000_000))
        else:
            self._submit(lambda: _store().prune(0))

    def restore(self, name: str, model: Model, token_ids: Sequence[int]) -> int:
        """Bring back what the prompt `token_ids` shares with what is kept; how many tokens it was.

        For the worker thread. 0 where that would spare little.
        """
        return _store().restore(name, model, token_ids)

    def is_worth_keeping(self, n_computed: int) -> bool:
        """Whether a prompt of which n_computed tokens were computed tells that none are kept."""
        return n_computed >= _store().MIN_TOKENS

    def remove(self, name: str) -> None:
        """Keep nothing of the session `name`."""
        self._submit(lambda: _store().remove(name))

    def remove_orphans(self) -> None:
        """Remove what is kept of sessions whose files were deleted."""

        def remove() -> None:
            store, names = _store(), set(sessions.names())
            for name in store.names():
                if name not in names:
                    store.remove(name)

        self._submit(remove)

    def finish(self, interrupts: Interrupts) -> None:
        """Wait for what is being written, FINISH_S at most; Ctrl-C gives it up."""
        if self._writing is None:
            return
        pressed, deadline = threading.Event(), time.monotonic() + FINISH_S
        with interrupts.cancelling(pressed):
            while not pressed.is_set() and time.monotonic() < deadline:
                if wait([self._writing], POLL_S).done:
                    return

    def _submit(self, work: Callable[[], object]) -> None:
        """Nobody waits for the result, so that a failure, a bug of ours, is told in the log."""

        def run() -> None:
            try:
                work()
            except Exception:
                logger.exception("the cache of a saved session")

        self._writing = self._worker.submit(run)


def _store() -> SavedCaches:
    import engine
    from data import paths

    return engine.SavedCaches(paths.cache_dir() / "kv")
