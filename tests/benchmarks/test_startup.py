"""Timing of commands and terminals, with commands that need no model."""

from __future__ import annotations

import sys
import time

import pytest

from benchmarks.startup import first_byte

SHELL = """
import sys, time
sys.stdout.write("\\x1b[6n"); sys.stdout.flush()
answer = sys.stdin.readline()
print("cursor known" if answer.startswith("\\x1b[") else "no answer")
sys.stdout.write("\\x1b[0m>\\x1b[1m>>\\x1b[3D\\x1b[4C"); sys.stdout.flush()
print("got", sys.stdin.readline().strip())
"""


def test_first_byte_is_timed_not_the_end() -> None:
    script = "import time; print('a', flush=True); time.sleep(1); print('b')"
    started = time.perf_counter()
    seconds = first_byte([sys.executable, "-c", script], {})
    assert 0 < seconds < time.perf_counter() - started - 0.5


def test_command_that_fails_is_told_with_its_last_line() -> None:
    script = "import sys; print('x'); sys.exit('no model here')"
    with pytest.raises(ValueError, match=r"ended with 1: no model here$"):
        first_byte([sys.executable, "-c", script], {})


def test_command_that_prints_nothing_is_no_measurement() -> None:
    with pytest.raises(ValueError, match="ended with 0: it printed nothing"):
        first_byte([sys.executable, "-c", "pass"], {})


def test_terminal_sees_text_between_escapes_and_answers_like_one() -> None:
    terminal = pytest.importorskip("benchmarks.terminal")
    with terminal.Terminal([sys.executable, "-c", SHELL], {}) as screen:
        screen.press("\r")  # ends the line that begins with the terminal's own answer
        assert screen.wait_for(">>>", 20) is not None
        screen.press("hello\r")
        assert screen.wait_for("got hello", 20) is not None
        assert screen.wait_for("never comes", 0.3) is None
    assert screen.process.returncode == 0


def test_program_that_hangs_is_ended_with_its_terminal() -> None:
    terminal = pytest.importorskip("benchmarks.terminal")
    with terminal.Terminal([sys.executable, "-c", "input()"], {}) as screen:
        assert screen.wait_for("anything", 0.2) is None
    assert screen.process.returncode != 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_idle_program_uses_no_cpu_and_a_busy_one_does() -> None:
    terminal = pytest.importorskip("benchmarks.terminal")
    with terminal.Terminal([sys.executable, "-c", "input('ready')"], {}) as screen:
        assert screen.wait_for("ready", 20) is not None
        assert screen.idle_percent(settle_s=0.1, watch_s=0.3) == 0
    with terminal.Terminal([sys.executable, "-c", "while True: pass"], {}) as screen:
        assert screen.idle_percent(settle_s=0.1, watch_s=0.3) > 10
