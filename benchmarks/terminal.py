"""A program under a pseudo-terminal, as a person starts it. POSIX only."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

_WHERE_IS_THE_CURSOR = b"\x1b[6n"
_ESCAPE = re.compile(rb"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07]*\x07|\x1b[=>()][0-9A-B]?")
_SIZE = struct.pack("HHHH", 24, 80, 0, 0)  # rows, columns, pixels


class Terminal:
    """Runs a command in a terminal of 80 columns; the end of a `with` block ends the command."""

    def __init__(self, command: Sequence[str], variables: Mapping[str, str]) -> None:
        self.shown = b""
        self._keyboard, screen = pty.openpty()
        fcntl.ioctl(screen, termios.TIOCSWINSZ, _SIZE)
        self.started = time.perf_counter()
        self.process = subprocess.Popen(
            command, stdin=screen, stdout=screen, stderr=screen, start_new_session=True,
            env={**os.environ, "TERM": "xterm-256color", **variables},
        )  # fmt: skip
        os.close(screen)

    def wait_for(self, text: str, deadline_s: float) -> float | None:
        """Seconds from the start until the text is on the screen; None when it does not come."""
        wanted = text.encode()
        while wanted not in _ESCAPE.sub(b"", self.shown):
            left = self.started + deadline_s - time.perf_counter()
            if left <= 0 or not self._read(left):
                return None
        return time.perf_counter() - self.started

    def press(self, text: str) -> None:
        """Press keys."""
        os.write(self._keyboard, text.encode())

    def _read(self, timeout_s: float) -> bool:
        """Take what was printed; False when nothing came in time or the program ended."""
        if not select.select([self._keyboard], [], [], timeout_s)[0]:
            return False
        try:
            new = os.read(self._keyboard, 65536)
        except OSError:  # how Linux tells that nobody has the terminal open any more
            return False
        self.shown += new
        for _ in range(new.count(_WHERE_IS_THE_CURSOR)):  # a terminal answers; programs wait for it
            os.write(self._keyboard, b"\x1b[1;1R")
        return bool(new)

    def idle_percent(self, settle_s: float, watch_s: float) -> float | None:
        """CPU of the program in percent of a core while nobody types; None elsewhere than Linux."""
        self._pass(settle_s)
        before = self._cpu_s()
        self._pass(watch_s)
        after = self._cpu_s()
        if before is None or after is None:
            return None
        return 100 * (after - before) / watch_s

    def _pass(self, seconds: float) -> None:
        end = time.perf_counter() + seconds
        while (left := end - time.perf_counter()) > 0:
            if not self._read(left):
                time.sleep(max(0.0, end - time.perf_counter()))

    def _cpu_s(self) -> float | None:
        try:
            text = Path(f"/proc/{self.process.pid}/stat").read_text("utf-8")
        except OSError:
            return None
        user, system = text.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.process.wait(0.05)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self._keyboard)
