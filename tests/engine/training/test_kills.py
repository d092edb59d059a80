"""A handful of kills at random moments; `python -m benchmarks.training_kills` is for hundreds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the kills need os.fork")
def test_killed_runs_end_as_if_they_had_not_been_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.training_kills", "--kills", "6"]
    environment = {**os.environ, "SPARSECHAT_HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout.splitlines()[-1])["rows"]
    assert (row["ours"], row["damaged"], row["kills"]) == (0, 0, 6)
    assert row["largest difference"] <= 1e-6
