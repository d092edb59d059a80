"""Fixtures for all tests. Every test runs in a home of its own; compiled kernels are shared."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from data.models import DEFAULT_MODEL, resolve

# the user's kernel cache is found before the home changes; child processes share it
os.environ["NUMBA_CACHE_DIR"] = import_module("engine.kernels.compiler").KERNEL_CACHE


def _find_default_model() -> Path | None:
    try:
        return resolve(DEFAULT_MODEL).path
    except (FileNotFoundError, ValueError):
        return None


_DEFAULT_MODEL = _find_default_model()


@pytest.fixture(scope="session")
def session_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home that lives as long as the session: packed weights are kept there."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def _home(session_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSECHAT_HOME", str(session_home))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home for one test."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("SPARSECHAT_HOME", str(folder))
    return folder


@pytest.fixture
def rng() -> np.random.Generator:
    """The same random numbers in every run."""
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """The default model's GGUF file; `make test` fetches it."""
    if _DEFAULT_MODEL is None:
        pytest.skip(f"the model is not there: sparsechat models pull {DEFAULT_MODEL}")
    return _DEFAULT_MODEL


@pytest.fixture
def read_only_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that nothing can be written to, not even by root: its parent is a file."""
    blocker = tmp_path / "file"
    blocker.write_text("not a folder")
    yield blocker / "home"
