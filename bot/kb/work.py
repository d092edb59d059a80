"""Long work on a knowledge base: with progress, and with a Ctrl-C that loses nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bot.interrupts import Interrupts
from bot.kb.progress import Progress

INTERRUPTED = 130


class Work:
    """Handed to what fills a base: `progress` hears how far it is, `cancel` says when to end."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.progress = Progress(name)
        self.cancel = threading.Event()

    def stage(self, name: str) -> Callable[[int, int | None, str], None]:
        """What a method of KnowledgeBase is to call: its share of the work has this name."""
        return lambda done, total, what: self.progress.report(done, total, name)

    @property
    def is_cancelled(self) -> bool:
        """Whether Ctrl-C was pressed."""
        return self.cancel.is_set()


@contextmanager
def working(name: str, interrupts: Interrupts | None = None) -> Iterator[Work]:
    """Inside the block a first Ctrl-C asks the work to commit and end; the third ends it hard.

    interrupts  the shell's; None makes one for the block
    """
    work = Work(name)
    try:
        if interrupts is not None:
            with interrupts.cancelling(work.cancel):
                yield work
        else:
            with Interrupts() as own, own.cancelling(work.cancel):
                yield work
    finally:
        work.progress.close()


def stopped(work: Work, kept: str, action: str) -> int:
    """Say what Ctrl-C left and how to go on; the exit code."""
    work.progress.note(f"interrupted: {kept}; `sparsechat kb {action}` goes on from there")
    return INTERRUPTED
