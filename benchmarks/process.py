"""A side of a benchmark in a process of its own, asked and answered in lines of JSON.

Only the standard library: peers load this file in their own environments too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

ROOT = Path(__file__).parents[1]
_DEADLINE_S = 600.0


class WorkerError(Exception):
    """The other process failed or ended; the message is one line, `details` its traceback."""

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details


class Worker:
    """A process that runs a driver module; close() or the end of a `with` block ends it."""

    def __init__(
        self, python: Path | str, module: str, variables: Mapping[str, str] | None = None
    ) -> None:
        self.name = module.rpartition(".")[2]
        self._errors: TextIO = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        self._process = subprocess.Popen(
            [str(python), "-m", module],
            cwd=ROOT,
            env={**os.environ, **(variables or {}), "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            encoding="utf-8",
        )

    def ask(self, action: str, deadline_s: float = _DEADLINE_S, **arguments: Any) -> dict[str, Any]:
        """Run one of the driver's actions; WorkerError when it raises, dies or takes too long."""
        assert self._process.stdin is not None and self._process.stdout is not None
        late = threading.Event()
        guard = threading.Timer(deadline_s, self._give_up, [late])
        guard.start()
        try:
            self._process.stdin.write(json.dumps({"action": action, **arguments}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except OSError:
            line = ""
        finally:
            guard.cancel()
        if not line:
            told = self._last_error()
            reason = f"no answer in {deadline_s:.0f} s" if late.is_set() else told
            raise WorkerError(f"{self.name} {action}: {reason}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerError(f"{self.name} {action}: {answer['error']}", answer["traceback"])
        return answer

    def _give_up(self, late: threading.Event) -> None:
        late.set()
        self._process.kill()

    def _last_error(self) -> str:
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        return f"ended with code {code}: {lines[-1] if lines else 'no message'}"

    def close(self) -> None:
        """End the process and wait for it."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
            self._process.wait(10)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._errors.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def run(main: Callable[[], None]) -> None:
    """A script's main(): where our own side fails, its traceback, one line, and exit code 1."""
    try:
        main()
    except WorkerError as error:
        sys.exit(f"{error.details}\n{error}".strip())


Handler = Callable[..., dict[str, Any]]


def serve(handlers: Mapping[str, Handler]) -> None:
    """The driver's side: answer requests until standard input ends.

    Whatever libraries print goes to stderr, so that it cannot be taken for an answer.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = handlers[request.pop("action")](**request)
        except Exception as error:
            line = f"{type(error).__name__}: {error}".splitlines()[0]
            answer = {"error": line, "traceback": traceback.format_exc()}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
