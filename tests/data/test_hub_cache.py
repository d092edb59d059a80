from __future__ import annotations

from pathlib import Path

import pytest

from data import hub_cache
from tests.data.conftest import HUB_VARIABLES
from tests.data.hub_layout import OTHER, cache_repository


@pytest.fixture
def cache(home: Path) -> Path:
    return hub_cache.cache_folder()


def test_the_cache_is_where_the_hubs_library_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in HUB_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert hub_cache.cache_folder() == tmp_path / ".cache" / "huggingface" / "hub"
    monkeypatch.setenv("HF_HOME", str(tmp_path / "a"))
    assert hub_cache.cache_folder() == tmp_path / "a" / "hub"
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "b"))
    assert hub_cache.cache_folder() == tmp_path / "b"


def test_main_is_meant_when_no_revision_is_named(cache: Path) -> None:
    cache_repository(cache, commit=OTHER, ref="v2")
    snapshot = cache_repository(cache)
    assert hub_cache.find("org/name", None, None) == snapshot


@pytest.mark.parametrize("revision", ["v2", OTHER])
def test_a_revision_is_a_ref_or_a_commit(cache: Path, revision: str) -> None:
    cache_repository(cache)
    snapshot = cache_repository(cache, commit=OTHER, ref="v2")
    assert hub_cache.find("org/name", revision, None) == snapshot


def test_a_pull_request_is_a_ref_too(cache: Path) -> None:
    snapshot = cache_repository(cache, ref="refs/pr/7")
    assert hub_cache.find("org/name", "refs/pr/7", None) == snapshot


def test_without_main_the_only_snapshot_is_meant_and_of_several_none(cache: Path) -> None:
    snapshot = cache_repository(cache, ref=None)
    assert hub_cache.find("org/name", None, None) == snapshot
    cache_repository(cache, commit=OTHER, ref=None)
    assert hub_cache.find("org/name", None, None) is None


@pytest.mark.parametrize("revision", ["v3", "0" * 40, "..", "."])
def test_an_unknown_revision_is_not_there(cache: Path, revision: str) -> None:
    cache_repository(cache)
    assert hub_cache.find("org/name", revision, None) is None


def test_a_ref_cannot_lead_out_of_the_snapshots(cache: Path) -> None:
    snapshot = cache_repository(cache)
    (snapshot.parents[1] / "refs" / "main").write_text("../../elsewhere")
    (cache / "elsewhere").mkdir()
    assert hub_cache.find("org/name", None, None) is None


def test_a_snapshot_with_a_tokenizer_only_is_no_model(cache: Path) -> None:
    cache_repository(cache, names=("config.json", "tokenizer.json"))
    assert hub_cache.find("org/name", None, None) is None
    assert hub_cache.repositories() == []


def test_the_only_gguf_file_is_the_model_and_of_several_one_must_be_named(cache: Path) -> None:
    snapshot = cache_repository(cache, names=("a.gguf", "README.md"))
    assert hub_cache.find("org/name", None, None) == snapshot / "a.gguf"
    cache_repository(cache, names=("b.gguf",))
    with pytest.raises(ValueError, match=r"org/name/a\.gguf, org/name/b\.gguf"):
        hub_cache.find("org/name", None, None)
    assert hub_cache.find("org/name", None, "b.gguf") == snapshot / "b.gguf"
    assert hub_cache.find("org/name", None, "c.gguf") is None


def test_models_in_the_cache_are_listed_by_name(cache: Path) -> None:
    assert hub_cache.repositories() == []
    cache_repository(cache, "b/model-x")
    cache_repository(cache, "a/one", ("one.gguf",))
    cache_repository(cache, "a/dataset-like", ("README.md",))
    (cache / "models--broken").mkdir()
    assert hub_cache.repositories() == ["a/one", "b/model-x"]
