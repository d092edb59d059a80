"""`python -m bot` with a fake engine: python tests/bot/fake_sparsechat.py SCENARIO [ARGUMENT …]

A process of its own, so that signals, terminals and exit codes are real. The scenarios are the
functions of this file; each returns the models by name, or None for the real engine and models.
"""

from __future__ import annotations

import operator
import os
import runpy
import select
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.fakes import (
    FakeBase,
    FakeCancel,
    FakeEncoder,
    FakeEngine,
    FakeLibrary,
    FakeModel,
    Reply,
    passage,
    replies,
)

WAIT_S = 60  # longer than any test waits


def say(text: str) -> None:
    """Tell the test how far this process is."""
    sys.stdout.write(text)
    sys.stdout.flush()


def until_cancelled(cancel: FakeCancel) -> None:
    say("(reading)")
    cancel.wait(WAIT_S)


def cancelled_before_token(n: int) -> Callable[[int, FakeCancel], None]:
    def during(number: int, cancel: FakeCancel) -> None:
        if number == n:
            cancel.wait(WAIT_S)

    return during


def talks() -> FakeEngine:
    """Answers, one after the other: at once, stuck while reading, stuck after "One two"."""
    stuck = Reply("never", reading=until_cancelled)
    cut = Reply("One two three", during=cancelled_before_token(len("One two")))
    return FakeEngine({"tiny": FakeModel(replies("Hi there.", stuck, cut, "Dà. 😀"))})


def cuts() -> FakeEngine:
    """The only answer gets stuck after "One two"."""
    cut = Reply("One two three", during=cancelled_before_token(len("One two")))
    return FakeEngine({"tiny": FakeModel(replies(cut))})


def waits_for_keys() -> FakeEngine:
    """The answer goes on after "One two" once a key was pressed."""

    def during(number: int, cancel: FakeCancel) -> None:
        if number == len("One two"):
            select.select([sys.stdin], [], [], WAIT_S)

    return FakeEngine({"tiny": FakeModel(replies(Reply("One two three", during)))})


def deaf() -> FakeEngine:
    """An engine that does not hear that it was cancelled."""
    stuck = Reply("never", reading=lambda cancel: (say("(reading)"), time.sleep(WAIT_S))[0])
    return FakeEngine({"tiny": FakeModel(replies(stuck))})


def loads_forever() -> FakeEngine:
    def loading(on_progress: Callable[[str, float], None]) -> None:
        on_progress("compiling kernels (first start)", 0.0)
        time.sleep(WAIT_S)

    return FakeEngine({"tiny": FakeModel(replies("never"))}, loading)


def fails_to_load() -> FakeEngine:
    good = FakeModel(replies("Hi there."))
    return FakeEngine({"tiny": ValueError("tiny.gguf: bad magic"), "good": good})


def has_a_bug() -> FakeEngine:
    return FakeEngine({"tiny": KeyError("oops")})


def speaks_in_escapes() -> FakeEngine:
    return FakeEngine({"tiny": FakeModel(replies("a\x1b]0;owned\x07b\x9b2Jc\td\r\ne"))})


def never_stops() -> FakeEngine:
    return FakeEngine({"tiny": FakeModel(replies("blah\n" * 100_000), max_seq_len=10**7)})


def knows() -> FakeEngine:
    """Answers from the base docs, whose encoder comes when the file FAKE_ENCODER is there."""
    text = str(Path(__file__).with_name("fake_sparsechat.py"))
    docs = FakeBase({"Zurich": [passage("Zurich lies on a lake.", uri=text)]}, n_embedded=0)

    def load(name: str) -> FakeEncoder:
        while not os.path.exists(os.environ.get("FAKE_ENCODER", "")):
            time.sleep(0.05)
        return FakeEncoder()

    FakeLibrary({"docs": docs}, load).install_in(operator.setitem)
    return FakeEngine({"tiny": FakeModel(replies("On a lake."))})


if __name__ == "__main__":
    scenario, sys.argv = sys.argv[1], ["sparsechat", *sys.argv[2:]]
    engine: FakeEngine = globals()[scenario]()
    engine.install_in(operator.setitem)
    runpy.run_module("bot", run_name="__main__", alter_sys=False)
