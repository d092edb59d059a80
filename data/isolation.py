"""Functions over untrusted bytes in a child process with limits of memory, CPU and wall time.

A child serves one call after another, exceptions included, and is ended by a limit, a crash, a
caller that loses interest, or a minute without work. What it sends is data, checked before use.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

IDLE_S = 60.0
# a child has forgotten leaks and fragments after so many calls
MAX_CALLS = 1000
_LARGE = 32 << 20
_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); import data.isolated as i; i.main()"
)
# enough for the interpreter to find its own libraries; no tokens, no proxies
_ENVIRONMENT = ("SYSTEMROOT", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH")


class IsolationError(RuntimeError):
    """The call did not end well. `kind`: "refused" (the function's own words), "lacking" (a
    package, by name), "failed", "memory", "time" or "crash". The message, the reason only, is one
    short line."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(" ".join(reason.split())[:400])
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Ceiling:
    """max_seconds: of the child's work (the time that the caller spends between values does not
    count); max_memory_bytes: beyond an empty child, where the system enforces it (Linux);
    max_answer_bytes: of what is sent back at a time."""

    max_seconds: float
    max_memory_bytes: int
    max_answer_bytes: int


def call(
    target: str, content: bytes, arguments: Mapping[str, Any], ceiling: Ceiling
) -> Iterator[Any]:
    """The values of `module:function(content, arguments)`, an iterable of what JSON can hold, run
    in a child. Raises IsolationError; OSError when no child can be started."""
    header = {
        "target": target,
        "arguments": dict(arguments),
        "n_bytes": len(content),
        "max_seconds": ceiling.max_seconds,
        "max_memory_bytes": ceiling.max_memory_bytes,
    }
    request = json.dumps(header).encode() + b"\n"
    child = _take()
    is_whole = False
    try:
        left = ceiling.max_seconds
        with child.within(left) as spent:
            child.send(request, content)
        while True:
            left -= spent[0]
            with child.within(left) as spent:
                answer = child.answer(ceiling)
            yield from answer["values"]
            if "end" in answer:
                break
        is_whole = answer["end"] != "memory"
        _raise_for(answer, ceiling)
    finally:
        child.n_calls += 1
        if is_whole and len(content) < _LARGE and child.n_calls < MAX_CALLS:
            _give_back(child)
        else:
            child.end()


def close() -> None:
    """End the children that wait for work."""
    with _lock:
        children, _idle[:] = list(_idle), []
    for child in children:
        child.end()


def _raise_for(answer: Mapping[str, Any], ceiling: Ceiling) -> None:
    kind, why = str(answer["end"]), str(answer.get("why", ""))
    if kind == "memory":
        why = _too_much_memory(ceiling)
    if kind != "done":
        raise IsolationError(kind, why)


def _too_much_memory(ceiling: Ceiling) -> str:
    return f"it takes more than {ceiling.max_memory_bytes / 1e6:,.0f} MB of memory to read"


class _Child:
    """One process and the two pipes to it."""

    def __init__(self) -> None:
        root = str(Path(__file__).resolve().parents[1])
        path = [root, *(os.path.abspath(entry) for entry in sys.path if entry)]
        command = [sys.executable, "-I", "-S", "-X", "utf8", "-c", _BOOT, json.dumps(path)]
        self._process = subprocess.Popen(
            command,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
            cwd=os.path.abspath(os.sep),
            # Ctrl-C is the parent's business
            start_new_session=True,
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
        self.n_calls = 0
        self._is_late = False

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    @contextmanager
    def within(self, seconds: float) -> Iterator[list[float]]:
        """Kill the process when the block takes longer; gives the seconds spent, at the end."""
        timer = threading.Timer(max(0.0, seconds), self._expire)
        timer.daemon = True
        spent, begin = [0.0], time.monotonic()
        timer.start()
        try:
            yield spent
        finally:
            timer.cancel()
            timer.join()
            spent[0] = time.monotonic() - begin

    def _expire(self) -> None:
        self._is_late = True
        self._process.kill()

    def send(self, *parts: bytes) -> None:
        """A child that cannot be written to says why when it is read from."""
        assert self._process.stdin
        with suppress(BrokenPipeError, OSError):
            for part in parts:
                view = memoryview(part)
                while view:
                    view = view[self._process.stdin.write(view[: 1 << 20]) or 0 :]

    def answer(self, ceiling: Ceiling) -> dict[str, Any]:
        """The next frame. IsolationError when the child has died or talks nonsense."""
        n_bytes = int.from_bytes(self._read(4, ceiling), "little")
        if n_bytes > ceiling.max_answer_bytes:
            raise IsolationError("failed", f"it becomes {n_bytes / 1e6:,.0f} MB of text")
        try:
            value = json.loads(self._read(n_bytes, ceiling))
        except ValueError as error:
            raise IsolationError("crash", "its reader sent back nonsense") from error
        if not isinstance(value, dict) or not isinstance(value.setdefault("values", []), list):
            raise IsolationError("crash", "its reader sent back nonsense")
        return value

    def _read(self, n_bytes: int, ceiling: Ceiling) -> bytes:
        assert self._process.stdout
        got = bytearray()
        while len(got) < n_bytes:
            piece = self._process.stdout.read(min(n_bytes - len(got), 1 << 20))
            if not piece:
                raise self._death(ceiling)
            got += piece
        return bytes(got)

    def _death(self, ceiling: Ceiling) -> IsolationError:
        code = self._process.wait()
        out_of_time = code == -getattr(signal, "SIGXCPU", 0) and code != 0
        if self._is_late or out_of_time:
            return IsolationError("time", f"it takes longer than {ceiling.max_seconds:g} s to read")
        if code == -getattr(
            signal, "SIGKILL", 9
        ):  # by the system, which does so for want of memory
            return IsolationError("memory", _too_much_memory(ceiling))
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return IsolationError("crash", f"it crashes its reader ({how})")

    def end(self) -> None:
        """Kill the process, if it is still there, and let go of it and its pipes."""
        self._process.kill()
        self._process.wait()
        self.forget()

    def forget(self) -> None:
        """Close the pipes only."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                with suppress(OSError):
                    pipe.close()


_lock = threading.Lock()
_idle: list[_Child] = []
_not_ours: list[_Child] = []
_timer: threading.Timer | None = None


def _take() -> _Child:
    """A child that waits for work, or a new one."""
    while True:
        with _lock:
            child = _idle.pop() if _idle else None
        if child is None:
            return _Child()
        if child.is_alive:
            return child
        child.end()


def _give_back(child: _Child) -> None:
    global _timer
    with _lock:
        spare = bool(_idle)
        if not spare:
            _idle.append(child)
            if _timer:
                _timer.cancel()
            _timer = threading.Timer(IDLE_S, close)
            _timer.daemon = True
            _timer.start()
    if spare:
        child.end()


def _forget_in_fork() -> None:
    """A forked process has the pipes, but the children and their timer are its parent's."""
    global _lock, _timer
    _lock, _timer = threading.Lock(), None
    for child in _idle:
        child.forget()
    _not_ours.extend(_idle)  # kept, so that nobody waits for processes of others
    _idle.clear()


atexit.register(close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_fork)
