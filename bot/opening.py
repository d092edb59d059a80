"""Puts the shell together: reader, history, worker, model on its way."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from prompt_toolkit.history import History, InMemoryHistory

from bot import commands, render, terminal
from bot.chat import Chat
from bot.config import Config
from bot.failures import log_hint
from bot.interrupts import Interrupts
from bot.loading import ModelLoader
from bot.reader import PlainReader, Reader, TerminalReader
from bot.shell import Shell
from bot.state import ShellState
from bot.worker import Worker

if TYPE_CHECKING:
    from data.models import ResolvedModel

CLOSE_S = 0.5  # an answer stops within 0.1 s; a model that is being loaded cannot be stopped


def open_shell(config: Config, found: ResolvedModel, log_path: Path | None) -> int:
    """Run the shell until it is left; the exit code."""
    settings = config.settings()
    worker, interrupts = Worker(), Interrupts()
    loader = ModelLoader(worker)
    state = ShellState(config, Chat(settings), loader, interrupts)
    state.knowledge.waits = not terminal.is_terminal(sys.stdin)
    edits = state.tries_levels = terminal.can_edit() and not settings.plain
    with interrupts, terminal.no_echo() if edits else nullcontext():
        loader.start(found, settings)
        state.saved_kv.remove_orphans()
        reader: Reader
        if edits:
            history = open_history(settings.history, log_path is not None)
            reader = TerminalReader(lambda text: commands.complete(state, text), history)
        else:
            reader = PlainReader(interrupts)
        try:
            code = Shell(state, reader, log_hint(log_path)).run()
            if loader.loading is None:  # else what is to be written waits for a model
                state.saved_kv.finish(interrupts)
            return code
        finally:
            state.knowledge.close()
            worker.close(CLOSE_S)


def open_history(wanted: bool, logs: bool) -> History:
    """The history file, or memory, with one warning line, where the home cannot be written."""
    if not wanted:
        return InMemoryHistory()
    from bot.history import DiskHistory
    from data import paths

    try:
        return DiskHistory(paths.state_dir() / "history")
    except OSError as error:
        log = "" if logs else ", and nothing is logged"
        render.err(f"warning: what you type is kept in memory only{log}: {error}")
        return InMemoryHistory()
