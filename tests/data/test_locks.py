from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from data import locks


def write_owner(path: Path, pid: int, host: str | None = None) -> None:
    path.write_text(json.dumps({"pid": pid, "host": host or socket.gethostname()}))


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_the_lock_file_names_its_owner_and_goes_away(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    with locks.hold(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_the_lock_goes_away_when_the_block_fails(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        with locks.hold(tmp_path / "a.lock"):
            raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_dead_owners_lock_is_broken_without_a_word(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    write_owner(path, dead_pid())
    said: list[str] = []
    with locks.hold(path, said.append):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert said == []
    assert list(tmp_path.iterdir()) == []


def test_a_leftover_with_our_own_number_is_broken(tmp_path: Path) -> None:
    # containers start every time with the same few process numbers
    path = tmp_path / "a.lock"
    write_owner(path, os.getpid())
    with locks.hold(path):
        assert path.exists()


def test_an_empty_lock_is_stale_only_once_it_is_old(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    path.touch()
    assert not locks._is_stale(path)
    long_ago = time.time() - 2 * locks.NEWBORN_S
    os.utime(path, (long_ago, long_ago))
    assert locks._is_stale(path)


def test_a_lock_of_another_machine_is_respected(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    write_owner(path, dead_pid(), host="elsewhere")
    assert not locks._is_stale(path)


def test_a_breaker_leaves_a_lock_alone_that_has_become_live(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    write_owner(path, os.getppid())
    locks._break(path)
    assert path.exists()
    assert list(tmp_path.iterdir()) == [path]


def test_a_breaker_that_died_does_not_block_the_next(tmp_path: Path) -> None:
    path, guard = tmp_path / "a.lock", tmp_path / "a.lock.break"
    write_owner(path, dead_pid())
    write_owner(guard, dead_pid())
    long_ago = time.time() - 2 * locks.NEWBORN_S
    os.utime(guard, (long_ago, long_ago))
    with locks.hold(path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_the_second_holder_waits_and_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "POLL_S", 0.001)
    path, events = tmp_path / "a.lock", []
    waiting = threading.Event()

    def second() -> None:
        def on_wait(line: str) -> None:
            events.append(line)
            waiting.set()

        with locks.hold(path, on_wait):
            events.append("second")

    with locks.hold(path):
        thread = threading.Thread(target=second)
        thread.start()
        assert waiting.wait(10)
        events.append("first")
    thread.join(10)
    assert events == [
        f"waiting for process {os.getpid()}, which holds {path}",
        "first",
        "second",
    ]


def test_a_living_process_of_another_program_holds_its_lock(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    write_owner(path, os.getppid())
    assert not locks._is_stale(path)


def test_many_threads_never_hold_it_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "POLL_S", 0.0005)
    inside, worst = [0], [0]

    def work() -> None:
        for _ in range(10):
            with locks.hold(tmp_path / "a.lock"):
                inside[0] += 1
                worst[0] = max(worst[0], inside[0])
                time.sleep(0)
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert worst == [1]
