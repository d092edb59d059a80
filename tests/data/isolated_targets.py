"""What tests/data/test_isolation.py runs in a child."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

from data.documents import DocumentError

Arguments = Mapping[str, Any]


def echo(content: bytes, arguments: Arguments) -> Iterator[Any]:
    for _ in range(arguments.get("times", 1)):
        yield {"text": content.decode(), "pid": os.getpid()}


def surroundings(content: bytes, arguments: Arguments) -> Iterator[Any]:
    yield {
        "environment": sorted(os.environ),
        "folder": os.getcwd(),
        "open": sorted(int(name) for name in os.listdir("/proc/self/fd"))
        if os.path.isdir("/proc/self/fd")
        else [],
        "modules": sorted(sys.modules),
        "group": os.getpgid(0) if hasattr(os, "getpgid") else 0,
    }


def noise(content: bytes, arguments: Arguments) -> Iterator[Any]:
    sys.stdout.write("noise\n" * 1000)
    os.write(1, b"noise")
    os.write(2, b"noise")
    yield sys.stdin.read()


def spin(content: bytes, arguments: Arguments) -> Iterator[Any]:
    yield {"text": "x" * (1 << 20)}
    while True:
        pass


def sleep(content: bytes, arguments: Arguments) -> Iterator[Any]:
    time.sleep(600)
    yield None


def gorge(content: bytes, arguments: Arguments) -> Iterator[Any]:
    yield [bytes(1 << 20) for _ in range(4_000)]


def crash(content: bytes, arguments: Arguments) -> Iterator[Any]:
    os._exit(7)
    yield None


def abort(content: bytes, arguments: Arguments) -> Iterator[Any]:
    os.abort()
    yield None


def refuse(content: bytes, arguments: Arguments) -> Iterator[Any]:
    yield 1
    raise DocumentError("/a.txt: not this one")


def fail(content: bytes, arguments: Arguments) -> Iterator[Any]:
    raise KeyError("a\nb" * 500)


def lack(content: bytes, arguments: Arguments) -> Iterator[Any]:
    import a_package_that_is_not_there  # type: ignore[import-not-found]

    yield a_package_that_is_not_there


def flood(content: bytes, arguments: Arguments) -> Iterator[Any]:
    yield "x" * 3_000_000


def surrogates(content: bytes, arguments: Arguments) -> Iterator[Any]:
    yield "a\ud800b"
