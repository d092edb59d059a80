"""Reading a base: a snapshot of the database with the index that belongs to it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loguru import logger

from . import embedding, generations
from .damage import DamagedError
from .generations import Generation
from .store import Store

# a damaged index of at most so many chunks is made anew by the search that notices
HEALED_AT_ONCE = 50_000


class Reader:
    """Opens what it needs when it is needed; for any number of threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._store: Store | None = None
        self._generation: Generation | None = None
        self._guard = threading.RLock()

    def close(self) -> None:
        """Give back files and memory. What is asked for next is opened again."""
        with self._guard:
            store, self._store = self._store, None
            generation, self._generation = self._generation, None
        if store:
            store.close()
        if generation:
            generation.close()

    def store(self) -> Store:
        """The database, verified when it is opened: DamagedError."""
        with self._guard:
            if self._store is None:
                self._store = Store.open(self._folder)
            return self._store

    @contextmanager
    def view(self) -> Iterator[tuple[Store, Generation | None]]:
        """A snapshot of the store, and the generation that was current at that moment: what a
        change or a build did is seen in both or in neither. None: there is no index that fits."""
        store = self.store()
        while True:
            generation = self._current()
            with store.snapshot():
                if generation is not self._current():
                    continue  # published in between
                settings = store.settings()
                if generation is not None and not embedding.fits(generation.manifest, settings):
                    generation = None
                yield store, generation
                return

    def _current(self) -> Generation | None:
        with self._guard:
            try:
                pointer = generations.pointer_of(self._folder)
                if pointer != (self._generation.pointer if self._generation else None):
                    # searches under way keep the old one; it closes when the last has ended
                    self._generation = generations.open_current(self._folder)
            except DamagedError as error:
                logger.warning("{}", error)
                self._generation = self._healed()
            return self._generation

    def _healed(self) -> Generation | None:
        """Set the damaged index aside and make a small one anew, unless somebody is writing."""
        try:
            with Store.open(self._folder, write=True) as store:
                generations.set_current_aside(self._folder)
                if store.state().n_chunks <= HEALED_AT_ONCE:
                    embedding.build(store)
                    return generations.open_current(self._folder)
        except OSError as error:
            logger.warning("the index of {} was not made anew: {}", self._folder.name, error)
        return None
