"""A shell driven by keys, answering from a script, and the transcript of what it showed."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from loguru import logger
from prompt_toolkit.history import History, InMemoryHistory
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from bot import commands, render
from bot.chat import Chat
from bot.config import read_config
from bot.interrupts import Interrupts
from bot.loading import ModelLoader, find_model
from bot.reader import Reader, TerminalReader
from bot.shell import Shell
from bot.state import ShellState
from bot.worker import Worker
from tests.fakes import FakeCancel, FakeEngine, FakeLibrary, FakeModel, Reply, replies


@pytest.fixture(autouse=True)
def _no_log() -> None:
    """loguru's own sink prints to stderr; `main` removes it, tests that do not call main too."""
    logger.remove()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A SPARSECHAT_HOME of its own, and no other SPARSECHAT_ variable."""
    for name in [name for name in os.environ if name.startswith("SPARSECHAT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SPARSECHAT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


class EchoReader:
    """Writes what was read into the transcript, where a terminal would have shown it."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.is_interactive = reader.is_interactive

    def read(self) -> str:
        try:
            line = self._reader.read()
        except EOFError:
            render.out(">>> ^D")
            raise
        except KeyboardInterrupt:
            render.out(">>> ^C")
            raise
        shown = line if len(line) < 100 else f"{line[:20]}… ({len(line)} characters)"
        render.out(f">>> {shown}")
        return line

    def interject(self, show: Callable[[], None]) -> None:
        self._reader.interject(show)


@dataclass
class Session:
    """A finished run of the shell."""

    code: int
    text: str
    state: ShellState
    model: FakeModel

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()


class Talk:
    """Runs the shell on keys; a Ctrl-D is added at the end."""

    def __init__(self, set_item: Any, set_attribute: Any) -> None:
        self._set_item, self._set_attribute = set_item, set_attribute
        self.history: History = InMemoryHistory()
        self.clock: Callable[[], float] = lambda: 0.0
        self.flags: dict[str, Any] = {"seed": 7}
        self.engine = FakeEngine({})
        self.library = FakeLibrary()
        self.waits = False  # whether a search waits for the encoder

    def __call__(self, keys: str, *texts: str | Reply, model: FakeModel | None = None) -> Session:
        model = model or FakeModel()
        model.replies.extend(replies(*texts))
        self.engine.models.setdefault("tiny", model)
        self.engine.install_in(self._set_item)
        if self.library.bases:
            self.library.install_in(self._set_item)
        shown = io.StringIO()
        self._set_attribute(sys, "stdout", shown)
        self._set_attribute(sys, "stderr", shown)
        worker, interrupts = Worker(), Interrupts()
        config = read_config({"model": "tiny", **self.flags})
        state = ShellState(config, Chat(config.settings()), ModelLoader(worker), interrupts)
        state.shows_stats = False
        state.knowledge.waits = self.waits
        with create_pipe_input() as pipe, interrupts:
            # a pipe holds 64 kB: the rest is written while the shell reads
            typed = (keys + "\x04").encode("utf-8", "surrogateescape")
            typist = threading.Thread(target=pipe.send_bytes, args=(typed,))
            typist.start()
            editor = TerminalReader(
                lambda text: commands.complete(state, text), self.history, pipe, DummyOutput()
            )
            state.loader.start(find_model("tiny"), config.settings())
            code = Shell(state, EchoReader(editor), "details in LOG", self.clock).run()
            typist.join()
        state.knowledge.close()
        assert worker.close(5.0)
        return Session(code, shown.getvalue(), state, model)


@pytest.fixture
def talk(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Talk]:
    yield Talk(monkeypatch.setitem, monkeypatch.setattr)


def ctrl_c_before_token(n: int) -> Callable[[int, FakeCancel], None]:
    """Presses Ctrl-C when n tokens were said, and goes on once the shell has heard it."""

    def during(number: int, cancel: FakeCancel) -> None:
        if number == n:
            press_ctrl_c(cancel)

    return during


def press_ctrl_c(cancel: FakeCancel) -> None:
    """As the terminal does it; returns when the shell has cancelled the answer."""
    os.kill(os.getpid(), signal.SIGINT)
    assert cancel.wait(10)
