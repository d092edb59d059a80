"""The knowledge base that answers are grounded in, and the thread that reads it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from bot.evidence import Evidence, evidence_of, near_best
from bot.interrupts import Interrupts
from bot.loading import POLL_S, Interrupted
from bot.preparing import Preparation
from bot.settings import Settings
from bot.worker import Worker

if TYPE_CHECKING:
    from retrieval import KnowledgeBase
    from retrieval.encoder import Encoder
    from retrieval.search import Search

OFF = "off"
DEFAULT_BASE = "wikipedia"
STOP_S = 1.0  # a batch of vectors ends within this, usually
Result = TypeVar("Result")


def wanted_base(settings: Settings) -> str | None:
    """The base that the settings name; None for none and "off"."""
    return None if settings.kb in (None, OFF) else settings.kb


class Knowledge:
    """At most one base is in use; others are looked at through `open_base`.

    waits    whether a search waits for the encoder, and no vectors are made behind it: where nobody
             types, every run is to find the same
    on_news  called, from any thread, when there is something in `news`
    """

    def __init__(self, interrupts: Interrupts, waits: bool = False) -> None:
        self.waits = waits
        self.last: Search | None = None  # for /why
        self.on_news: Callable[[], None] | None = None
        self._interrupts = interrupts
        self._news: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._encoders: dict[str, Encoder] = {}
        self._worker: Worker | None = None
        self._base: KnowledgeBase | None = None
        self._preparation: Preparation | None = None
        self._wanted: str | None = None
        self.before: str | None = None  # the base that was in use before this one

    @property
    def name(self) -> str | None:
        """The base that is to be used, whether or not it could be opened."""
        return self._wanted

    @property
    def why(self) -> str:
        """In what the base in use is less than it will be; "" when in nothing."""
        return self._preparation.why if self._preparation else ""

    def use(self, name: str | None) -> None:
        """Ground the next answers in the base `name`; None in none. Nothing is read yet."""
        if name != self._wanted:
            self.close()
            self.before, self._wanted = self._wanted, name

    def begin(self) -> None:
        """Open the base that is wanted, if any, and get it ready behind the prompt.

        The errors of KnowledgeBase.open.
        """
        if self._wanted is None or self._base is not None:
            return
        self._base = open_base(self._wanted)
        self._prepare()

    @contextmanager
    def released(self) -> Iterator[None]:
        """Nothing of ours writes to the base inside the block; then it is made ready anew."""
        self._stop_preparing()
        try:
            yield
        finally:
            if self._base is not None:
                self._prepare()

    def search(self, query: str, settings: Settings) -> Search:
        """What the base in use has for `query`. Interrupted on Ctrl-C."""
        self.begin()
        base, preparation = self._base, self._preparation
        if base is None or preparation is None:
            raise ValueError("no knowledge base is in use; /kb NAME uses one")
        if self.waits and settings.search_mode != "lexical":
            self._wait(preparation.encoder)
        found = self._read(
            lambda: base.look_up(query, settings.k, settings.w, settings.w_th, settings.search_mode)
        )
        if found.why and preparation.why:  # the shell knows why the encoder is not there
            found = replace(found, why=preparation.why)
        self.last = found
        return found

    def evidence(self, query: str, settings: Settings) -> Evidence:
        """The best of it as numbered sources; for an empty query nothing is searched."""
        assert self._wanted is not None
        if not query:
            return Evidence(self._wanted, "", settings.search_mode)
        return near_best(evidence_of(self._wanted, self.search(query, settings)))

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Leave the cores to an answer."""
        with self._preparation.resting() if self._preparation else nullcontext():
            yield

    def news(self) -> list[str]:
        """Lines that were not told yet."""
        told = []
        while not self._news.empty():
            told.append(self._news.get())
        return told

    def close(self) -> None:
        """Stop what is under way, as soon as it has committed; the base is no longer in use."""
        self._stop_preparing()
        base, self._base = self._base, None
        if base is not None:
            base.close()

    def _prepare(self) -> None:
        assert self._base is not None
        self._preparation = Preparation(self._base, self._encoders, self._tell)
        self._preparation.start(fills=not self.waits)

    def _stop_preparing(self) -> None:
        if self._preparation is not None:
            self._preparation.stop(STOP_S)
            self._preparation = None

    def _read(self, work: Callable[[], Result]) -> Result:
        if self._worker is None:
            self._worker = Worker("reader")
        return self._wait(self._worker.submit(work))

    def _wait(self, future: Future[Result]) -> Result:
        """The future's result; Interrupted on Ctrl-C."""
        pressed = threading.Event()
        with self._interrupts.cancelling(pressed):
            while not wait([future], POLL_S).done:
                if pressed.is_set():
                    raise Interrupted("stopped; nothing was asked")
        return future.result()

    def _tell(self, line: str) -> None:
        self._news.put(line)
        if self.on_news is not None:
            self.on_news()


def open_base(name: str) -> KnowledgeBase:
    """The base `name`; KnowledgeBaseNotFoundError with the nearest names and the way out. Its
    encoder is loaded by whoever needs it: that takes seconds."""
    from retrieval import KnowledgeBase

    return KnowledgeBase.open(name, loads_encoder=False)


@contextmanager
def opened(name: str) -> Iterator[KnowledgeBase]:
    """The same, closed after the block."""
    base = open_base(name)
    try:
        yield base
    finally:
        base.close()


def base_names() -> list[str]:
    """What can be opened; nothing where the folder cannot be read."""
    from retrieval import KnowledgeBase

    try:
        return KnowledgeBase.names()
    except OSError:
        return []
