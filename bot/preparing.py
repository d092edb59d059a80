"""Getting a knowledge base ready behind the prompt: its encoder, then vectors that are missing.

The encoder's imports take five seconds; vectors of ten thousand articles take minutes. Neither may
keep anyone from asking: until they are there, words are searched alone. While an answer is being
computed the work rests, because both need all cores.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING

from loguru import logger

from bot.failures import EXPECTED
from bot.loading import POLL_S
from bot.pieces import InPieces, Stopped

if TYPE_CHECKING:
    from retrieval import KnowledgeBase
    from retrieval.encoder import Encoder

LOADING = "the encoder is still loading"


class Preparation:
    """What one base needs, on a thread of its own.

    base    read from; gets the encoder when it is there
    loaded  encoders by name, shared by the bases of one shell
    tell    called once with a line that the user should see; from the thread
    """

    def __init__(
        self, base: KnowledgeBase, loaded: dict[str, Encoder], tell: Callable[[str], None]
    ) -> None:
        self.why = LOADING  # in what the base is less than it will be; "" when it is ready
        self.encoder: Future[Encoder | None] = Future()
        self._base, self._loaded, self._tell = base, loaded, tell
        self._cancel, self._idle = threading.Event(), threading.Event()
        self._idle.set()
        self._fills = True
        self._thread = threading.Thread(target=self._run, name="knowledge", daemon=True)

    def start(self, fills: bool = True) -> None:
        """Begin; `fills` says whether vectors that are missing are made."""
        self._fills = fills
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Commit what is done and end; True when that was in time."""
        self._cancel.set()
        self._idle.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @contextmanager
    def resting(self) -> Iterator[None]:
        """No vectors are made inside the block, from the next batch on."""
        self._idle.clear()
        try:
            yield
        finally:
            self._idle.set()

    def _run(self) -> None:
        try:
            encoder = self._load()
        except EXPECTED as error:
            self.why = str(error)
            self._tell(f"{self._base.name} is searched by words alone: {error}")
            encoder = None
        except BaseException as error:
            logger.exception("the encoder")
            self.why = f"the encoder failed: {type(error).__name__}"
            self._tell(f"{self._base.name} is searched by words alone: {self.why}")
            encoder = None
        self.encoder.set_result(encoder)
        if encoder is None or not self._fills or self._cancel.is_set():
            return
        try:
            self._fill(encoder)
        except EXPECTED as error:
            logger.opt(exception=error).debug("vectors")
            self.why = f"vectors are missing: {error}"
            self._tell(f"the vectors of {self._base.name} were not finished: {error}")
        except BaseException:
            logger.exception("vectors")

    def _load(self) -> Encoder | None:
        name = self._base.show().encoder
        if name is None:
            self.why = "the base is made without vectors"
            return None
        if name not in self._loaded:
            from retrieval.encoder import load_encoder

            self._loaded[name] = load_encoder(name)
        if not self._cancel.is_set():  # else the base is closed
            self._base.use_encoder(self._loaded[name])
            self.why = ""
        return self._loaded[name]

    def _fill(self, encoder: Encoder) -> None:
        """Make the missing vectors, unless another process is at work on the base."""
        from retrieval import BusyError, KnowledgeBase

        info = self._base.show()
        had_none = info.n_embedded == 0
        if info.n_embedded >= info.n_chunks and info.generation is not None:
            return
        writer = KnowledgeBase.open(self._base.folder, loads_encoder=False)
        try:
            writer.embed(InPieces(encoder, self._rest), self._progress, self._cancel)
            if not self._cancel.is_set():
                writer.build(cancel=self._cancel)
        except (BusyError, Stopped):
            return
        finally:
            writer.close()
            self.why = ""
        if had_none and not self._cancel.is_set():
            self._tell(f"the vectors of {self._base.name} are ready: hybrid search from now on")

    def _progress(self, done: int, total: int | None, what: str) -> None:
        if total:
            self.why = f"vectors are being built: {done:,} of {total:,}"
        self._wait_for_quiet()

    def _rest(self, n_done: int) -> None:
        """Between pieces of a batch."""
        self._wait_for_quiet()
        if self._cancel.is_set():
            raise Stopped

    def _wait_for_quiet(self) -> None:
        """Until no answer is being made."""
        while not self._idle.wait(POLL_S) and not self._cancel.is_set():
            continue
