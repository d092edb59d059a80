from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bot.preparing import LOADING, Preparation
from tests.fakes import FakeBase, FakeEncoder, FakeKnowledgeBase, FakeLibrary

WAIT_S = 10


class Shelf:
    """A library with the base docs, and a preparation of it."""

    def __init__(self, set_item: Any) -> None:
        self.docs = FakeBase(n_embedded=0, n_chunks=3)
        self.library = FakeLibrary({"docs": self.docs})
        self.told: list[str] = []
        self.loaded: dict[str, Any] = {}
        self._set_item = set_item

    def start(self, fills: bool = True) -> Preparation:
        self.library.install_in(self._set_item)
        import retrieval

        self.base: Any = vars(retrieval)["KnowledgeBase"].open("docs")
        preparation = Preparation(self.base, self.loaded, self.told.append)
        preparation.start(fills)
        return preparation


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Shelf:
    return Shelf(monkeypatch.setitem)


@pytest.fixture
def embed_steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Makes embedding wait for a step before each batch."""
    steps = threading.Semaphore(0)
    embed = FakeKnowledgeBase.embed

    def slowly(self: Any, encoder: Any, on_progress: Any = None, cancel: Any = None) -> int:
        def report(done: int, total: int, what: str) -> None:
            on_progress(done, total, what)
            assert steps.acquire(timeout=WAIT_S)

        return embed(self, encoder, report, cancel)

    monkeypatch.setattr(FakeKnowledgeBase, "embed", slowly)
    yield steps.release


def test_encoder_then_vectors_then_one_line(shelf: Shelf) -> None:
    preparation = shelf.start()
    preparation._thread.join(WAIT_S)
    assert isinstance(preparation.encoder.result(0), FakeEncoder)
    assert shelf.docs.n_embedded == 3 and preparation.why == ""
    assert shelf.told == ["the vectors of docs are ready: hybrid search from now on"]


def test_vectors_that_are_there_are_not_spoken_of(shelf: Shelf) -> None:
    shelf.docs.n_embedded = 3
    shelf.start()._thread.join(WAIT_S)
    assert shelf.told == []


def test_new_documents_in_a_base_with_vectors_are_filled_in_silence(shelf: Shelf) -> None:
    shelf.docs.n_embedded = 1
    shelf.start()._thread.join(WAIT_S)
    assert shelf.docs.n_embedded == 3 and shelf.told == []


def test_where_nobody_waits_for_them_no_vectors_are_made(shelf: Shelf) -> None:
    shelf.start(fills=False)._thread.join(WAIT_S)
    assert shelf.docs.n_embedded == 0


def test_an_encoder_is_loaded_once_for_all_bases(shelf: Shelf) -> None:
    shelf.loaded["minilm"] = known = FakeEncoder()
    preparation = shelf.start()
    assert preparation.encoder.result(WAIT_S) is known
    preparation._thread.join(WAIT_S)


def test_a_base_without_an_encoder_stays_as_it_is(shelf: Shelf) -> None:
    shelf.docs.encoder = None
    preparation = shelf.start()
    preparation._thread.join(WAIT_S)
    assert preparation.encoder.result(0) is None
    assert preparation.why == "the base is made without vectors" and shelf.told == []


def test_a_bug_in_the_encoder_is_told_and_words_are_searched(shelf: Shelf) -> None:
    def load(name: str) -> Any:
        raise KeyError("oops")

    shelf.library.encoder = load
    preparation = shelf.start()
    preparation._thread.join(WAIT_S)
    assert preparation.encoder.result(0) is None
    assert shelf.told == ["docs is searched by words alone: the encoder failed: KeyError"]


def test_while_the_encoder_loads_that_is_the_reason(shelf: Shelf) -> None:
    goes_on = threading.Event()

    def load(name: str) -> Any:
        assert goes_on.wait(WAIT_S)
        return FakeEncoder()

    shelf.library.encoder = load
    preparation = shelf.start()
    assert preparation.why == LOADING
    goes_on.set()
    preparation._thread.join(WAIT_S)


def test_vectors_rest_while_an_answer_is_made(
    shelf: Shelf, embed_steps: Callable[[], None]
) -> None:
    preparation = shelf.start()
    preparation.encoder.result(WAIT_S)
    with preparation.resting():
        for _ in range(3):
            embed_steps()
        preparation._thread.join(0.2)
        assert shelf.docs.n_embedded < 3  # a batch that had begun was finished
    preparation._thread.join(WAIT_S)
    assert shelf.docs.n_embedded == 3


def test_stopping_keeps_what_is_done(shelf: Shelf, embed_steps: Callable[[], None]) -> None:
    preparation = shelf.start()
    preparation.encoder.result(WAIT_S)
    embed_steps()
    while shelf.docs.n_embedded < 2:
        preparation._thread.join(0.01)
    stopped = threading.Thread(target=lambda: preparation.stop(WAIT_S))
    stopped.start()
    while not preparation._cancel.is_set():
        stopped.join(0.01)
    embed_steps()
    stopped.join(WAIT_S)
    assert not preparation._thread.is_alive()
    assert shelf.docs.n_embedded == 2 and shelf.told == []
