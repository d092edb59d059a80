"""How far a long piece of work is: a bar on terminals, elsewhere a line per tenth; on stderr."""

from __future__ import annotations

import shutil
import sys
import time

from bot import render, terminal
from data import files

REDRAW_S = 0.1
LINES_S = 5.0  # between two lines where no total is known
BAR = 24


class Progress:
    """Of the work on the knowledge base `name`. `done` counts what the last stage did."""

    def __init__(self, name: str) -> None:
        self.done = 0
        self._name = name
        self._status = render.Status()
        self._moves = terminal.is_terminal(sys.stderr) and not terminal.is_dumb()
        self._what, self._tenth = "", 0
        self._began, self._first, self._told = 0.0, 0, 0.0
        self._passed = ""  # of the file that documents come from

    def report(self, done: int, total: int | None, what: str) -> None:
        """What the methods of KnowledgeBase call."""
        now = time.monotonic()
        self.done = done
        if what != self._what:
            self._begin(done, total, what, now)
        if self._moves:
            if now - self._told >= REDRAW_S or done == total:
                self._told = now
                self._status.show(self._line(done, total, now))
        elif total and done * 10 // total > self._tenth:
            self._tenth = done * 10 // total
            render.err(f"{self._name}: {what} {self._tenth * 10} %{self._amount(done, total)}")
        elif not total and done and now - self._told >= LINES_S:
            self._told = now
            render.err(f"{self._name}: {what}{self._amount(done, None)}")

    def fetching(self, stage: str, done: int, total: int | None) -> None:
        """What downloads call: bytes; the stages around the download are over in a moment."""
        self.report(done, total if stage == "downloading" else None, stage)

    def passing(self, stage: str, done: int, total: int | None) -> None:
        """What readers of large files call: bytes. It stands behind the number of documents."""
        self._passed = f", {100 * done // total} % of the file" if total else ""

    def note(self, text: str) -> None:
        """A line of its own, above the bar."""
        self._status.clear()
        render.err(f"{self._name}: {text}")

    def close(self) -> None:
        """Take the bar away."""
        self._status.clear()

    def _begin(self, done: int, total: int | None, what: str, now: float) -> None:
        if self._what:
            self._passed = ""
        self._what, self._began, self._first = what, now, done
        self._told, self._tenth = now - REDRAW_S, (done * 10 // total if total else 0)
        if not self._moves:
            self._told = now
            render.err(f"{self._name}: {what}")

    def _amount(self, done: int, total: int | None) -> str:
        if self._what == "downloading":
            of = f" of {files.megabytes(total)}" if total else ""
            return f", {files.megabytes(done)}{of}"
        return f", {done:,} of {total:,}" if total else f", {done:,}{self._passed}"

    def _line(self, done: int, total: int | None, now: float) -> str:
        head = f"{self._name}: {self._what}"
        if not total:
            return f"{head}{self._amount(done, None)}" if done else head
        tail = f"{100 * done // total:3d} %{self._amount(done, total)}"
        elapsed, new = now - self._began, done - self._first
        if elapsed > 2 and new:
            left_s = round((total - done) * elapsed / new)
            tail += f", {left_s // 60}:{left_s % 60:02d} left"
        # a line that wraps cannot be written over; the bar gives way first
        columns = shutil.get_terminal_size().columns - 1
        width = min(BAR, columns - len(head) - len(tail) - 4)
        filled = width * done // total
        bar = f" [{'#' * filled}{'.' * (width - filled)}]" if width >= 4 else ""
        return f"{head}{bar} {tail}"[:columns]
