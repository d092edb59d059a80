"""A lock between processes: a file that only one of them can create.

The file holds the owner's process id and host. A lock whose owner is gone is broken by the next
comer, so a killed download never blocks the one after it.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

POLL_S = 0.2
# between creating the file and writing the owner into it lie microseconds; older and empty = dead
NEWBORN_S = 10.0

_held: set[Path] = set()
_threads = threading.Lock()


@contextmanager
def hold(path: Path, on_wait: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold the lock file `path` during the block, waiting for another holder to finish.

    `on_wait` is told once, in one line, whom we wait for.
    """
    told = False
    while not _take(path):
        if _is_stale(path):
            _break(path)
            continue
        if on_wait and not told:
            pid = _owner(path)[0]
            on_wait(f"waiting for process {pid or 'unknown'}, which holds {path}")
            told = True
        time.sleep(POLL_S)
    try:
        yield
    finally:
        with _threads:
            with suppress(FileNotFoundError):
                path.unlink()
            _held.discard(path)


def is_held(path: Path) -> bool:
    """Whether a living process holds the lock file `path`."""
    return path.exists() and not _is_stale(path)


def _take(path: Path) -> bool:
    with _threads:  # a file of this process that is not in _held is a leftover, see _is_stale
        if path in _held or not _create(path):
            return False
        _held.add(path)
        return True


def _create(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        return False
    except PermissionError:
        # Windows answers so while a deleted lock is still open somewhere
        if path.exists() or sys.platform != "win32":
            raise
        return False
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump({"pid": os.getpid(), "host": socket.gethostname()}, file)
    except OSError:  # a full disk: an empty lock would only make the next one wait
        path.unlink()
        raise
    return True


def _owner(path: Path) -> tuple[int | None, str]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        return int(value["pid"]), str(value["host"])
    except (OSError, ValueError, KeyError, TypeError):
        return None, ""


def _is_stale(path: Path) -> bool:
    pid, host = _owner(path)
    if pid is None:
        try:
            return time.time() - path.stat().st_mtime > NEWBORN_S
        except OSError:
            return False
    if host != socket.gethostname():
        return False  # nobody can look at processes of another machine; the message names the file
    if pid == os.getpid():
        with _threads:
            return path not in _held  # an earlier process had our number (usual in containers)
    return not _is_alive(pid)


def _break(path: Path) -> None:
    """Remove a stale lock; a second lock keeps two breakers from removing each other's new one."""
    guard = path.with_name(path.name + ".break")
    with suppress(OSError):
        if time.time() - guard.stat().st_mtime > NEWBORN_S:
            guard.unlink()
    if not _create(guard):
        time.sleep(POLL_S)
        return
    try:
        if _is_stale(path):
            with suppress(FileNotFoundError):
                path.unlink()
    finally:
        with suppress(FileNotFoundError):
            guard.unlink()


def _is_alive(pid: int) -> bool:
    if sys.platform == "win32":  # os.kill(pid, 0) would send Ctrl-C there
        import ctypes

        query, still_active = 0x1000, 259
        kernel = ctypes.windll.kernel32
        handle = kernel.OpenProcess(query, False, pid)
        if not handle:
            return False
        code = ctypes.c_ulong()
        kernel.GetExitCodeProcess(handle, ctypes.byref(code))
        kernel.CloseHandle(handle)
        return code.value == still_active
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
