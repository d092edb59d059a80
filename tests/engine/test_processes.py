"""Threads of the engine where processes fork and end."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

MODEL = """
import os, signal, sys, threading, time, warnings
from tests.engine.decoders import small_config, small_decoder

warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12's, of fork beside threads
IDS = [5, 17, 3, 88, 42]
# a call takes long enough to be in the middle of one
slow = dict(n_layers=30, hidden_size=256, intermediate_size=1024, max_seq_len=4096)

def logits(decoder):
    return decoder.extend(decoder.new_cache(), IDS).tobytes()

def compute(decoder, started):
    while True:
        decoder.extend(decoder.new_cache(), [7] * 300, on_progress=lambda *tokens: started.set())

def compute_on_a_daemon_thread(decoder):
    started = threading.Event()
    threading.Thread(target=compute, args=(decoder, started), daemon=True).start()
    started.wait()
"""

forks = pytest.mark.skipif(not hasattr(signal, "SIGCHLD"), reason="no fork on this system")


def run(script: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
    """A Python process that has MODEL; what it said and its exit code."""
    return subprocess.run(
        [sys.executable, "-c", MODEL + textwrap.dedent(script)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


@forks
@pytest.mark.parametrize("n_threads", [1, 3])
def test_a_forked_process_uses_the_model_and_so_does_the_one_it_came_from(n_threads: int) -> None:
    done = run(f"""
        decoder = small_decoder(small_config(), threads={n_threads})
        expected = logits(decoder)
        for _ in range(5):
            child = os.fork()
            same = all(logits(decoder) == expected for _ in range(20))
            if child == 0:
                grandchild = os.fork()
                same = logits(decoder) == expected and same
                if grandchild:
                    same = os.waitpid(grandchild, 0)[1] == 0 and same
                os._exit(0 if same else 3)
            assert same and os.waitpid(child, 0)[1] == 0
        assert threading.active_count() == {n_threads}
    """)
    assert (done.returncode, done.stderr) == (0, "")


@forks
def test_a_process_that_is_forked_in_the_middle_of_a_call_uses_the_model() -> None:
    done = run("""
        decoder = small_decoder(small_config(**slow), threads=2)
        expected = logits(decoder)
        compute_on_a_daemon_thread(decoder)
        for _ in range(20):
            child = os.fork()
            if child == 0:
                os._exit(0 if logits(decoder) == expected else 3)
            assert os.waitpid(child, 0)[1] == 0
            time.sleep(0.003)
    """)
    assert (done.returncode, done.stderr) == (0, "")


@forks
def test_processes_of_multiprocessing_use_the_model_and_end_by_themselves() -> None:
    done = run("""
        import multiprocessing
        decoder = small_decoder(small_config(), threads=2)
        expected = logits(decoder)

        def again(number):
            return logits(decoder) == expected

        with multiprocessing.get_context("fork").Pool(2) as pool:
            assert all(pool.map(again, range(20), chunksize=1))
            pool.close()
            pool.join()
        assert again(0)
    """)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_process_ends_while_its_threads_sleep() -> None:
    done = run("""
        decoder = small_decoder(small_config(), threads=3)
        logits(decoder)
        time.sleep(0.05)
        sys.exit(5)
    """)
    assert (done.returncode, done.stderr) == (5, "")


@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize("ends", ["sys.exit(5)", "raise SystemExit(5)"])
def test_a_process_ends_in_the_middle_of_a_daemon_threads_call(ends: str, n_threads: int) -> None:
    done = run(f"""
        decoder = small_decoder(small_config(**slow), threads={n_threads})
        compute_on_a_daemon_thread(decoder)
        {ends}
    """)
    assert (done.returncode, done.stderr) == (5, "")


def test_a_daemon_thread_that_goes_on_after_every_error_does_not_hold_up_the_end() -> None:
    done = run("""
        decoder = small_decoder(small_config(**slow), threads=2)

        def go_on(started):
            while True:
                try:
                    compute(decoder, started)
                except Exception:
                    continue

        started = threading.Event()
        threading.Thread(target=go_on, args=(started,), daemon=True).start()
        started.wait()
    """)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_process_waits_for_a_thread_that_is_no_daemon_and_its_call_is_not_cancelled() -> None:
    done = run("""
        decoder = small_decoder(small_config(**slow), threads=2)

        def compute_once():
            decoder.extend(decoder.new_cache(), [7] * 1000)
            print("computed")

        threading.Thread(target=compute_once).start()
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "computed\n", "")


@forks
@pytest.mark.parametrize(
    ("number", "code", "ending"),
    [("SIGINT", -signal.SIGINT, "KeyboardInterrupt"), ("SIGTERM", -signal.SIGTERM, "")],
)
def test_a_signal_ends_a_process_in_the_middle_of_a_call(
    number: str, code: int, ending: str
) -> None:
    done = run(f"""
        decoder = small_decoder(small_config(**slow), threads=2)
        logits(decoder)
        press = lambda: os.kill(os.getpid(), signal.{number})
        timer = threading.Timer(0.1, press)
        timer.daemon = True
        timer.start()
        compute(decoder, threading.Event())
    """)
    assert done.returncode == code
    assert done.stderr.strip().endswith(ending) and "Fatal" not in done.stderr
