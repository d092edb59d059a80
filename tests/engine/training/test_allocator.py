"""Memory that is freed in a block can be had again at once, and goes back at its end."""

from __future__ import annotations

import sys

import pytest
import torch

from engine.memory import used_bytes
from engine.training import allocator
from engine.training.allocator import freed_memory_kept

SIZE = 64 << 20


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_freed_memory_stays_in_the_block_and_goes_after_it() -> None:
    before = used_bytes()
    with freed_memory_kept():
        torch.ones(SIZE // 4)  # freed at once
        assert used_bytes() - before > SIZE // 2
    assert used_bytes() - before < SIZE // 2


def test_without_glibc_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator, "_glibc", lambda: None)
    with freed_memory_kept():
        assert torch.ones(3).sum() == 3
