"""Readings of the machine, on made-up clocks and a small array."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import machine
from benchmarks.bandwidth import Bandwidth
from benchmarks.machine import Clocks, Load
from engine.kernels.cpu import INSTRUCTIONS

STAT = "cpu  1000 10 200 5000 30 4 6 70 999 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n"


def test_stat_counts_all_but_idle_waiting_steal_and_guests() -> None:
    assert machine.busy_and_steal(STAT, 100) == (12.2, 0.7)


def test_foreign_load_is_what_others_used_in_percent_of_a_core() -> None:
    before = Clocks(wall=10.0, own=1.0, busy=100.0, steal=5.0)
    after = Clocks(wall=12.0, own=2.5, busy=102.5, steal=5.5)
    assert machine.load_between(before, after) == Load(50.0, 25.0)


def test_own_time_beyond_the_ticks_of_the_system_is_no_load() -> None:
    before = Clocks(10.0, 1.0, 100.0, 0.0)
    assert machine.load_between(before, Clocks(11.0, 2.02, 101.0, 0.0)) == Load(0.0, 0.0)


def test_load_is_unknown_where_the_system_does_not_tell() -> None:
    before = Clocks(10.0, 1.0, None, None)
    assert machine.load_between(before, Clocks(11.0, 2.0, None, None)) == Load(None, None)


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="needs /proc/stat")
def test_background_sees_a_process_that_is_not_ours() -> None:
    burn = "import time; print(flush=True)\nwhile time.process_time() < 0.5: pass"
    with subprocess.Popen([sys.executable, "-c", burn], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        before = machine.Background()
        with before:
            other.stdout.read()  # until it ends; it is not ours until it is waited for
    assert before.load.foreign_percent is not None
    assert before.load.foreign_percent > 10


def test_large_array_is_larger_than_any_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "l3_bytes", lambda: 1 << 29)
    assert machine.large_bytes() == 1 << 31


def test_read_gb_s_is_the_median_of_the_model_s_size_on_most_threads() -> None:
    measured = [
        Bandwidth(100, 1, 30.0),
        Bandwidth(100, 2, 38.0),
        Bandwidth(900, 2, 50.0),
        Bandwidth(100, 2, 55.0),
        Bandwidth(100, 2, 40.04),
    ]
    about = machine.describe(measured)
    assert about["read_gb_s"] == 40.0
    read = [tuple(b.values()) for b in about["read"]]
    assert read == [(100, 1, 30, 30, 30), (100, 2, 40, 38, 55), (900, 2, 50, 50, 50)]


def test_description_is_json_and_names_the_versions() -> None:
    about = json.loads(json.dumps(machine.describe()))
    assert about["read_gb_s"] is None
    assert about["cpu"] and about["cores"] >= 1
    assert {"python", "numba", "numpy"} <= about.keys()
    assert about["instructions"] in INSTRUCTIONS


@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="x86 names")
def test_instructions_are_those_of_the_measured_process() -> None:
    variables = {"NUMBA_CPU_NAME": "nocona", "NUMBA_CPU_FEATURES": ""}
    assert machine.describe(variables=variables)["instructions"] == "sse2"


def test_commit_marks_files_that_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*words: str) -> None:
        subprocess.run(
            ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *words],
            check=True, capture_output=True,
        )  # fmt: skip

    monkeypatch.setattr(machine, "ROOT", tmp_path)
    git("init", "-q")
    (tmp_path / "file").write_text("1")
    git("add", ".")
    git("commit", "-q", "-m", "one")
    clean = machine.commit()
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    (tmp_path / "benchmarks" / "results" / "decode.json").write_text("{}")
    assert machine.commit() == clean
    (tmp_path / "file").write_text("2")
    assert clean and machine.commit() == f"{clean}-dirty"


def test_commit_is_unknown_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "ROOT", tmp_path)
    assert machine.commit() is None


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_tells_what_was_touched_and_what_was_mapped(tmp_path: Path) -> None:
    script = """
import json, mmap, sys
from benchmarks.machine import memory
before = memory()
own = bytearray(64 << 20)
own[::4096] = b"x" * len(own[::4096])
file = open(sys.argv[1], "rb")
mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
mapped[::4096]
print(json.dumps([before, memory()]))
"""
    path = tmp_path / "file"
    path.write_bytes(bytes(32 << 20))
    told = subprocess.run(
        [sys.executable, "-c", script, str(path)],
        cwd=machine.ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    before, after = json.loads(told.stdout)
    assert 60 << 20 < after["anon"] - before["anon"] < 70 << 20
    assert 30 << 20 < after["file"] - before["file"] < 40 << 20
    assert after["peak"] >= after["anon"] + after["file"] > 0
