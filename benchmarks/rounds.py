"""Two sides, each in its own process, asked in turns."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import machine, peers
from benchmarks.options import Options, note
from benchmarks.process import Worker, WorkerError

# the name of an environment of benchmarks/peers.py -> its name for people, its driver
_PEERS = {
    "llama": ("llama.cpp", "benchmarks.llama_driver"),
    "llama-avx2": ("llama.cpp without AVX-512", "benchmarks.llama_driver"),
    "transformers": ("transformers in float32", "benchmarks.transformers_driver"),
}


class Task(NamedTuple):
    """One action of benchmarks/side.py on one file."""

    action: str
    path: Path
    threads: int
    n_tokens: int  # or steps
    position: int | None = None  # tokens before the first that is timed
    width: int | None = None  # beams, or tokens at once, of a step
    flash_attention: bool | None = None  # of the peer; None: tried out

    @property
    def context(self) -> int:
        """Tokens that the peer must have room for; a multiple of 256, as its kernels like it."""
        new = self.n_tokens * (self.width or 1)
        return -(-(new + (self.position or 0) + 16) // 256) * 256

    def arguments(self, n_tokens: int | None = None) -> dict[str, Any]:
        """What the action takes; the same pseudo-random ids for both sides."""
        rng = random.Random(0)
        # below 1,000 in every vocabulary: which token it is does not matter for speed
        found: dict[str, Any] = {
            "token_ids": [rng.randrange(1000) for _ in range(n_tokens or self.n_tokens)]
        }
        if self.position is not None:
            found["position"] = self.position
        if self.width is not None:
            found["width"] = self.width
        return found


class Round(NamedTuple):
    """Seconds of both sides, one right after the other."""

    ours: float
    peer: float | None
    loads: tuple[machine.Load, ...]

    @property
    def is_disturbed(self) -> bool:
        """Whether something else used the processor while one of the sides ran."""
        return any((load.foreign_percent or 0) > machine.DISTURBED_PERCENT for load in self.loads)

    def rates(self, n_tokens: int) -> tuple[float, float | None]:
        """Tokens a second of both sides."""
        return n_tokens / self.ours, n_tokens / self.peer if self.peer else None


class Sides:
    """Both processes with the model loaded, in a `with` block; the peer may be missing."""

    def __init__(self, task: Task, options: Options, flash_attention: bool | None) -> None:
        self.task = task
        self._options = options
        self.flash_attention = flash_attention
        self._stack = ExitStack()
        self.ours_loaded: dict[str, Any] = {}
        self.peer_loaded: dict[str, Any] = {}  # empty: it is missing

    def __enter__(self) -> Sides:
        with ExitStack() as stack:
            python, variables = sys.executable, self._options.variables()
            self._ours = stack.enter_context(Worker(python, "benchmarks.engine_driver", variables))
            self._peer = open_peer(self._options, stack)
            arguments: dict[str, Any] = {"path": str(self.task.path), "threads": self.task.threads}
            own: dict[str, Any] = (
                {"kv_cache": self._options.kv_cache} if self._options.kv_cache else {}
            )
            self.ours_loaded = self._ours.ask("load", **arguments, **own)
            self.peer_loaded = self._ask_peer(
                "load",
                **arguments,
                context=self.task.context,
                flash_attention=self.flash_attention,
                beams=self.task.width or 1,
            )
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def rounds(self, n: int, task: Task | None = None) -> Iterator[Round]:
        """n rounds after one that is not counted; who goes first changes.

        task   another than the one that the sides were made for, on the same file, with room

        A round that others disturbed is made again, up to twice n times; with --quick it counts. On
        a busy core the peer's threads wait for each other at a tenth of their speed, and a ratio to
        that says nothing.
        """
        task = task or self.task
        warm = task.arguments(min(max(task.n_tokens // 8, 16), task.n_tokens))
        self._ours.ask(task.action, **warm)
        self._ask_peer(task.action, **warm)
        spare = 0 if self._options.quick else 2 * n
        for i in range(n):
            took = self._round(task, ours_first=i % 2 == 0)
            while took.is_disturbed and spare:
                spare -= 1
                took = self._round(task, ours_first=i % 2 == 0)
            yield took

    def ask_both(self, action: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """One untimed action of ours and, where it is there, of the peer."""
        return self._ours.ask(action), self._ask_peer(action)

    def int8_peak(self) -> float:
        """What our process can multiply with the task's threads, in billions a second."""
        return float(self._ours.ask("int8_peak", threads=self.task.threads)["g_s"])

    def _round(self, task: Task, ours_first: bool) -> Round:
        arguments = task.arguments()
        theirs = {} if ours_first else self._ask_peer(task.action, **arguments)
        ours = self._ours.ask(task.action, **arguments)
        if ours_first:
            theirs = self._ask_peer(task.action, **arguments)
        loads = tuple(machine.Load(*answer["load"]) for answer in (ours, theirs) if answer)
        return Round(ours["seconds"], theirs.get("seconds"), loads)

    def _ask_peer(self, action: str, **arguments: Any) -> dict[str, Any]:
        """Nothing from the first failure on; ours goes on alone."""
        if self._peer is None:
            return {}
        try:
            return self._peer.ask(action, **arguments)
        except WorkerError as error:
            note(f"{peer_name(self._options)} is left out: {error}")
            self._peer = None
            return {}


def periods(
    work: Sequence[tuple[str, Task]], options: Options
) -> Iterator[tuple[int, Task, Sides]]:
    """(period, task, both sides ready): all tasks once, then all again with new processes."""
    flash = {task: _flash_attention(task, options) for _, task in work}
    for period in range(options.periods):
        for case, task in work:
            threads = "1 thread" if task.threads == 1 else f"{task.threads} threads"
            note(f"period {period + 1} of {options.periods}: {case}, {threads}")
            with Sides(task, options, flash[task]) as sides:
                yield period, task, sides


def _flash_attention(task: Task, options: Options) -> bool | None:
    """The task's own choice; with --quick the peer's default; else what is faster for it."""
    if task.flash_attention is not None or options.quick:
        return task.flash_attention
    return prefers_flash_attention(task, options)


def peer_name(options: Options) -> str | None:
    """What people call the peer; None without one."""
    return _PEERS[options.peer][0] if options.peer else None


def open_peer(options: Options, stack: ExitStack) -> Worker | None:
    """A process of the peer, or None."""
    python = peers.find(options.peer) if options.peer else None
    if python is None or options.peer is None:
        return None
    return stack.enter_context(Worker(python, _PEERS[options.peer][1]))


def prefers_flash_attention(task: Task, options: Options) -> bool:
    """Whether the peer is faster with flash attention: it shall run as its user would run it."""
    if options.peer == "transformers":  # has no such choice here
        return False
    seconds: list[float] = []
    n_tokens = max(task.n_tokens // 4, 8)
    for enabled in (False, True):
        with ExitStack() as stack:
            worker = open_peer(options, stack)
            if worker is None:
                return False
            try:
                worker.ask(
                    "load", path=str(task.path), threads=task.threads, context=task.context,
                    flash_attention=enabled, beams=task.width or 1,
                )  # fmt: skip
                arguments = task.arguments(n_tokens)
                tries = [worker.ask(task.action, **arguments)["seconds"] for _ in range(3)]
                seconds.append(min(tries))
            except WorkerError as error:
                note(f"flash attention {enabled}: {error}")
                seconds.append(float("inf"))
    return seconds[1] < seconds[0]
