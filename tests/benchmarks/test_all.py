"""The order of all benchmarks; none is run."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from benchmarks import all as everything


def run(monkeypatch: pytest.MonkeyPatch, *words: str, failing: str = "") -> tuple[int, list[str]]:
    ran: list[str] = []

    def fake(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        ran.append(" ".join(command[2:]))
        code = 1 if failing and command[2] == f"benchmarks.{failing}" else 0
        return subprocess.CompletedProcess(command, code)

    monkeypatch.setattr(everything.subprocess, "run", fake)
    monkeypatch.setattr(everything.targets, "main", lambda: ran.append("targets"))
    monkeypatch.setattr(sys, "argv", ["all", *words])
    return everything.main(), ran


def test_flags_reach_every_benchmark_and_targets_come_last(monkeypatch: pytest.MonkeyPatch) -> None:
    code, ran = run(monkeypatch, "--save", "--quick")
    assert code == 0
    assert ran[0] == "benchmarks.decode --save --quick"
    assert ran[-1] == "targets"
    assert all(line.endswith("--save --quick") for line in ran[:-1])


def test_one_that_fails_does_not_hold_up_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, ran = run(monkeypatch, "--only", "resume", "quality", failing="resume")
    assert (code, ran) == (1, ["benchmarks.resume", "benchmarks.quality", "targets"])
    assert "benchmarks.resume ended with 1" in capsys.readouterr().out
