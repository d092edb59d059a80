"""The child of data/isolation.py: reads requests on stdin, runs a function, writes frames.

It starts with nothing but the standard library, no site-packages start-up files, an empty
environment and `/` as its folder, and lowers its own limits before it touches what it was sent.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import math
import os
import time
from collections.abc import Iterator
from importlib import import_module
from typing import Any, BinaryIO

from .documents import DocumentError

# documents of a frame, in characters: rows travel together, so that a frame is worth its costs
BATCH = 1 << 18
# beyond the parent's own patience, for a child whose parent is gone
GRACE_S = 30.0


def main() -> None:
    """Answer requests until stdin ends."""
    requests, answers = _pipes()
    size_at_start = _address_space()
    _limit("RLIMIT_CORE", 0)
    while line := requests.readline():
        request = json.loads(line)
        content = requests.read(request["n_bytes"])
        if len(content) < request["n_bytes"]:
            return
        seconds = request["max_seconds"]
        _limit("RLIMIT_CPU", math.ceil(time.process_time() + seconds) + 1)
        if size_at_start:
            _limit("RLIMIT_AS", size_at_start + request["max_memory_bytes"])
        for frame in _frames(request, content):
            faulthandler.cancel_dump_traceback_later()  # the parent may take its time to read
            answers.write(len(frame).to_bytes(4, "little") + frame)
            answers.flush()
            _watch(seconds)
        faulthandler.cancel_dump_traceback_later()
        del content


def _pipes() -> tuple[BinaryIO, BinaryIO]:
    """stdin and a private stdout; whatever a library prints goes nowhere."""
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    os.close(nothing)
    return requests, answers


def _frames(request: dict[str, Any], content: bytes) -> Iterator[bytes]:
    """The function's values in frames; the last says how it ended: "done", "refused" (a
    DocumentError), "lacking" (a package), "memory" or "failed"."""
    _watch(request["max_seconds"])
    batch: list[Any] = []
    size = 0
    try:
        module, _, function = request["target"].partition(":")
        values = getattr(import_module(module), function)(content, request["arguments"])
        for value in values:
            batch.append(value)
            size += len(value.get("text", "")) if isinstance(value, dict) else 0
            if size >= BATCH:
                yield _frame({"values": batch})
                batch, size = [], 0
        yield _frame({"values": batch, "end": "done", "why": ""})
    except MemoryError:
        yield _frame({"end": "memory", "why": ""})
    except ModuleNotFoundError as error:
        yield _frame({"values": batch, "end": "lacking", "why": error.name or str(error)})
    except DocumentError as error:
        yield _frame({"values": batch, "end": "refused", "why": str(error)})
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        yield _frame({"values": batch, "end": "failed", "why": why})


def _frame(value: dict[str, Any]) -> bytes:
    # lone surrogates, which no UTF-8 has, become question marks: one character for one
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")


def _watch(seconds: float) -> None:
    """End this process by a thread in C, which no loop can keep from running."""
    faulthandler.dump_traceback_later(seconds + GRACE_S, exit=True, file=2)


def _address_space() -> int:
    """Bytes of address space in use; 0 where the system does not say (and would not obey)."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[0]) * os.sysconf("SC_PAGESIZE")
    except (OSError, ValueError, AttributeError):
        return 0


def _limit(name: str, value: int) -> None:
    """Lower a soft limit where the system has it."""
    try:
        import resource
    except ImportError:  # Windows
        return
    with contextlib.suppress(OSError, ValueError, AttributeError):
        kind = getattr(resource, name)
        hard = resource.getrlimit(kind)[1]
        if hard != resource.RLIM_INFINITY:
            value = min(value, hard)
        resource.setrlimit(kind, (value, hard))
