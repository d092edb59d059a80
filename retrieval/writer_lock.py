"""One writer at a time: a lock of the operating system, gone when its process is.

Where data.locks waits for the other to finish, this one fails at once and says who it is. The
lock is on an open file, so two handles of one process exclude each other as well; children made
by fork close their copy, or they would keep the lock alive after their parent.
"""

from __future__ import annotations

import os
import sys
import weakref
from contextlib import suppress
from datetime import datetime
from pathlib import Path

FILE = "writer.lock"
# Windows locks bytes, and locked bytes cannot be read: one far behind the text is taken
_LOCKED_BYTE = 1 << 30


class BusyError(OSError):
    """Another writer is at work; the message names it."""


class WriterLock:
    """Held from the constructor to `release`; BusyError when another holds it."""

    def __init__(self, folder: Path) -> None:
        path = folder / FILE
        self._descriptor: int | None = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _take(self._descriptor)
        except OSError as error:
            os.close(self._descriptor)
            self._descriptor = None
            if not isinstance(error, BlockingIOError | PermissionError):
                raise
            raise BusyError(
                f"the knowledge base {folder.name} is being written to by {_owner(path)}; "
                "wait until it has finished, or stop it (what it has committed stays)"
            ) from None
        os.ftruncate(self._descriptor, 0)
        os.write(self._descriptor, f"{os.getpid()} {datetime.now():%H:%M:%S}\n".encode())
        _held.add(self)

    def release(self) -> None:
        """Let the next one write. Harmless when it is done twice."""
        if self._descriptor is not None:
            with suppress(OSError):
                os.ftruncate(self._descriptor, 0)
            self._close()

    def _close(self) -> None:
        _held.discard(self)
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _owner(path: Path) -> str:
    with suppress(OSError, ValueError):
        pid, since = path.read_text(encoding="utf-8").split()
        return f"process {int(pid)} since {since}"
    return "another process"


def _take(descriptor: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        os.lseek(descriptor, 0, os.SEEK_SET)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _close_all() -> None:
    for lock in list(_held):
        lock._close()


_held: weakref.WeakSet[WriterLock] = weakref.WeakSet()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_all)
