from __future__ import annotations

import os
from pathlib import Path

import pytest

from data import paths

FUNCTIONS = [paths.config_dir, paths.data_dir, paths.state_dir, paths.cache_dir, paths.models_dir]


def test_everything_lies_below_sparsechat_home_when_it_is_set(home: Path) -> None:
    assert {function() for function in FUNCTIONS} == {
        home / "config",
        home / "data",
        home / "state",
        home / "cache",
        home / "data" / "models",
    }


def test_the_variable_is_read_at_each_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSECHAT_HOME", str(tmp_path / "a"))
    before = paths.data_dir()
    monkeypatch.setenv("SPARSECHAT_HOME", str(tmp_path / "b"))
    assert (before, paths.data_dir()) == (tmp_path / "a" / "data", tmp_path / "b" / "data")


def test_a_relative_home_and_a_tilde_are_made_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPARSECHAT_HOME", "here")
    assert paths.home() == tmp_path / "here"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("SPARSECHAT_HOME", "~/there")
    assert paths.home() == tmp_path / "there"


@pytest.mark.parametrize("value", [None, "", "  "])
def test_without_a_home_the_folders_are_the_platforms_and_four_different_ones(
    value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SPARSECHAT_HOME", raising=False)
    if value is not None:
        monkeypatch.setenv("SPARSECHAT_HOME", value)
    assert paths.home() is None
    for function in FUNCTIONS:
        assert "sparsechat" in function().parts
        assert function().is_absolute()


def test_asking_for_a_folder_does_not_create_it(home: Path) -> None:
    for function in FUNCTIONS:
        function()
    assert not os.path.exists(home)
