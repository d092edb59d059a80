"""Memory that is freed in a block can be had again at once, and goes back at its end."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from engine.training import allocator
from engine.training.allocator import freed_memory_kept

# In a process of its own: one in which other tests ran has free memory that a block can be cut from
SCRIPT = """
import torch
from engine.memory import used_bytes
from engine.training.allocator import freed_memory_kept

before = used_bytes()
with freed_memory_kept():
    torch.ones(16 << 20)  # 64 MB, freed at once
    print(used_bytes() - before)
print(used_bytes() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_freed_memory_stays_in_the_block_and_goes_after_it() -> None:
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=120
    )
    within, after = map(int, run.stdout.split())
    assert within > 32 << 20
    assert after < 32 << 20


def test_without_glibc_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator, "_glibc", lambda: None)
    with freed_memory_kept():
        assert torch.ones(3).sum() == 3
