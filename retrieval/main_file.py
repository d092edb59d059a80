"""The database file, read beside SQLite without taking SQLite's locks away.

POSIX drops all locks that a process has on a file as soon as the process closes any descriptor of
it. SQLite would then go on without its locks, and another process would take the shared index from
under it. So a file that Databases of this process have open is opened once, and closed after the
last of them is.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path

from data import files

_Key = tuple[int, int]

_guard = threading.RLock()  # a file may be dropped while another is opened
_shared: dict[_Key, _Shared] = {}


@dataclass
class _Shared:
    """Descriptors of one file, of which the first is used, and how many use it."""

    descriptors: list[int]
    n_users: int = 0


class MainFile:
    """`path` as it is now: a file that is put in its place later is another one."""

    def __init__(self, path: Path) -> None:
        self._file: _Shared | None = None
        with _guard:
            stat = path.stat()
            known = _shared.get((stat.st_dev, stat.st_ino))
            if known is None:
                descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
                stat = os.fstat(descriptor)
                known = _shared.setdefault((stat.st_dev, stat.st_ino), _Shared([]))
                known.descriptors.append(descriptor)
            known.n_users += 1
        self._file = known
        self._key = stat.st_dev, stat.st_ino

    def stamp(self) -> tuple[int, int, int]:
        """Size, mtime_ns and inode: what changes when anybody writes to the file."""
        stat = os.fstat(self._descriptor())
        return stat.st_size, stat.st_mtime_ns, stat.st_ino

    def is_at(self, path: Path) -> bool:
        """Whether `path` is still this file."""
        stat = path.stat()
        return (stat.st_dev, stat.st_ino) == self._key

    def read(self, n_bytes: int, at: int) -> bytes:
        """Up to n_bytes from the offset `at` on; less at the end of the file."""
        if hasattr(os, "pread"):
            return os.pread(self._descriptor(), n_bytes, at)
        with _guard:  # Windows: one position for all threads
            os.lseek(self._descriptor(), at, os.SEEK_SET)
            return os.read(self._descriptor(), n_bytes)

    def copy_to(self, path: Path) -> None:
        """Write all of it to a new file."""
        with path.open("wb") as copy:
            while block := self.read(files.CHUNK, copy.tell()):
                copy.write(block)

    def close(self) -> None:
        """To be called when the caller's connections are closed. Harmless when done twice."""
        with _guard:
            file, self._file = self._file, None
            if file is None:
                return
            file.n_users -= 1
            if not file.n_users:
                del _shared[self._key]
                for descriptor in file.descriptors:
                    os.close(descriptor)

    def __del__(self) -> None:
        self.close()

    def _descriptor(self) -> int:
        assert self._file is not None, "closed"
        return self._file.descriptors[0]
