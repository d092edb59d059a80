from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.data.file_server import FileServer, serving

HUB_VARIABLES = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty SPARSECHAT_HOME and an empty hub cache."""
    for name in HUB_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SPARSECHAT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """A well-behaved server with 3 MB of bytes that do not repeat soon."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr("data.download.RETRY_PAUSE_S", 0.0)
    content = b"".join(n.to_bytes(4, "little") for n in range(750_000))
    with serving(FileServer(content)) as running:
        yield running
