from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import data
from data import catalogue, files, models, paths, records
from data.catalogue import RegisteredModel
from data.models import ModelNotFoundError, resolve
from data.records import FileRecord
from tests.data.hub_layout import COMMIT, OTHER, cache_repository

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def cache(home: Path) -> Path:
    return home.parent / "hub"


def install(name: str) -> Path:
    staging = files.private_folder(records.partial_folder(name) / "staging")
    (staging / "m.gguf").write_bytes(b"GGUF")
    held = [FileRecord("m.gguf", 4, "hash")]
    return records.install(RegisteredModel(name, name, ()), staging, held, "test").path


def gguf(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"GGUF")
    return path


def directory(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text("{}")
    (path / "model.safetensors").write_bytes(b"")
    return path


def test_the_default_model_is_registered() -> None:
    assert models.DEFAULT_MODEL == "smollm2-135m"
    assert models.registry()[0].name == models.DEFAULT_MODEL


# 1: paths


@pytest.mark.parametrize("name", ["sub/My.gguf", "./sub/My.gguf", "sub/../sub/My.gguf"])
def test_a_gguf_file_is_itself(home: Path, name: str) -> None:
    gguf(home.parent / "sub" / "My.gguf")
    found = resolve(name)
    assert (found.name, found.path, found.source) == ("My", Path(name), "path")


def test_a_gguf_file_may_have_any_name_if_it_begins_like_one(home: Path) -> None:
    gguf(home.parent / "blob")
    assert resolve("blob").path == Path("blob")
    assert resolve(str(home.parent / "blob")).source == "path"


def test_a_tilde_is_the_home_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(home.parent))
    monkeypatch.setenv("USERPROFILE", str(home.parent))
    file = gguf(home.parent / "a.gguf")
    assert resolve("~/a.gguf").path == file


@pytest.mark.parametrize("name", ["org/name", "./org/name", "org/name/"])
def test_a_model_directory_is_itself(home: Path, name: str) -> None:
    directory(home.parent / "org" / "name")
    found = resolve(name)
    assert (found.name, found.source) == ("name", "path")
    assert found.path.resolve() == home.parent / "org" / "name"


def test_a_folder_comes_before_names_of_the_registry_and_the_hub(home: Path, cache: Path) -> None:
    install("smollm2-135m")
    cache_repository(cache)
    directory(home.parent / "smollm2-135m")
    directory(home.parent / "org" / "name")
    assert resolve("smollm2-135m").source == "path"
    assert resolve("org/name").source == "path"


def test_a_folder_that_is_no_model_does_not_hide_a_name(home: Path) -> None:
    (home.parent / "smollm2-135m").mkdir()
    (home.parent / "smollm2-360m").write_text("a note")
    path = install("smollm2-135m")
    assert resolve("smollm2-135m").path == path
    with pytest.raises(ModelNotFoundError, match="smollm2-360m is not installed"):
        resolve("smollm2-360m")


def test_a_folder_with_one_gguf_file_is_that_file_and_with_two_a_question(home: Path) -> None:
    folder = home.parent / "folder"
    file = gguf(folder / "a.gguf")
    assert resolve("./folder").path == Path("folder/a.gguf")
    assert resolve(str(folder)).path == file
    gguf(folder / "b.gguf")
    with pytest.raises(ValueError, match="name one of them"):
        resolve("./folder")


@pytest.mark.parametrize("name", ["./none", "/none/at/all", "none.gguf", "a/b/c", "~/none", "../x"])
def test_a_path_that_does_not_exist_is_said_to_be_one(home: Path, name: str) -> None:
    with pytest.raises(ModelNotFoundError, match="there is no file or folder") as caught:
        resolve(name)
    assert name in str(caught.value)


def test_a_file_or_folder_that_is_no_model_is_said_to_be_none(home: Path) -> None:
    (home.parent / "notes.txt").write_text("hello")
    (home.parent / "folder").mkdir()
    for name in ("./notes.txt", str(home.parent / "folder")):
        with pytest.raises(ValueError, match="is no model: a GGUF file"):
            resolve(name)


# 2: names of the registry


def test_an_installed_name_is_found_whatever_its_case(home: Path) -> None:
    path = install("smollm2-135m")
    found = resolve("SmolLM2-135M")
    assert (found.name, found.path, found.source) == ("smollm2-135m", path, "installed")


def test_a_registered_name_that_is_not_installed_names_the_pull_command(home: Path) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        resolve("smollm2-135m")
    assert str(caught.value) == (
        "smollm2-135m is not installed; `sparsechat models pull smollm2-135m` fetches it (98.4 MB)"
    )


def test_a_damaged_model_is_called_damaged(home: Path) -> None:
    install("smollm2-135m").write_bytes(b"")
    with pytest.raises(ModelNotFoundError, match=r"is damaged; .*models pull smollm2-135m"):
        resolve("smollm2-135m")


# 3: the hub cache


@pytest.mark.parametrize("name", ["org/name", "org/name@main", f"org/name@{COMMIT}"])
def test_a_hub_name_is_found_in_the_cache(cache: Path, name: str) -> None:
    snapshot = cache_repository(cache)
    cache_repository(cache, commit=OTHER, ref="v2")
    found = resolve(name)
    assert (found.name, found.path, found.source) == (name, snapshot, "hub cache")


def test_a_gguf_file_of_a_repository_is_found_in_the_cache(cache: Path) -> None:
    snapshot = cache_repository(cache, names=("a.gguf", "b.gguf"))
    assert resolve("org/name/b.gguf").path == snapshot / "b.gguf"
    with pytest.raises(ValueError, match=r"org/name/a\.gguf, org/name/b\.gguf"):
        resolve("org/name")


def test_what_pull_fetched_comes_before_the_cache(cache: Path) -> None:
    cache_repository(cache)
    path = install("org/name")
    assert resolve("org/name").path == path


def test_a_hub_name_that_is_nowhere_names_the_pull_command_and_near_names(cache: Path) -> None:
    cache_repository(cache, "org/other-name")
    with pytest.raises(ModelNotFoundError) as caught:
        resolve("org/othername@v1")
    message = str(caught.value)
    assert "neither a path, nor installed, nor in the hub cache" in message
    assert "org/other-name" in message
    assert "`sparsechat models pull org/othername@v1`" in message
    assert "\n" not in message


# 4: prefixes


def test_the_unique_beginning_of_an_installed_name_is_enough(home: Path) -> None:
    path = install("tinyllama-1.1b")
    assert resolve("tiny").path == path
    assert resolve("TINYL").path == path


def test_a_beginning_may_be_that_of_the_part_after_the_slash(home: Path) -> None:
    path = install("org/mymodel")
    assert [resolve(name).path for name in ("mym", "org", "org/my")] == [path] * 3


def test_a_beginning_that_fits_one_installed_model_means_it(home: Path) -> None:
    path = install("smollm2-360m")
    assert resolve("smol").path == path


def test_an_ambiguous_beginning_lists_its_candidates(home: Path) -> None:
    with pytest.raises(
        ModelNotFoundError,
        match=r"'smol' may be smollm2-135m, smollm2-135m-bf16 or smollm2-360m; type more",
    ):
        resolve("smol")
    install("smollm2-135m")
    install("smollm2-360m")
    with pytest.raises(ModelNotFoundError, match=r"may be smollm2-135m or smollm2-360m;"):
        resolve("smol")


def test_the_unique_beginning_of_a_registered_name_names_its_pull_command(home: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"`sparsechat models pull qwen2\.5-0\.5b`"):
        resolve("qwen")


# 5: nothing


def test_a_misspelt_name_gets_the_nearest_ones_and_a_pull_command(home: Path) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        resolve("smolm2-135m")
    assert "no model 'smolm2-135m'; the nearest are smollm2-135m" in str(caught.value)
    assert "`sparsechat models pull smollm2-135m`" in str(caught.value)


@pytest.mark.parametrize("name", ["", "  ", "zzzzzz", "a\0b", "x" * 5000, "..", "%", "日本", "-"])
def test_nonsense_is_one_line(home: Path, name: str) -> None:
    with pytest.raises((ModelNotFoundError, ValueError)) as caught:
        resolve(name)
    assert "\n" not in str(caught.value)


def test_the_error_is_a_file_not_found_error() -> None:
    assert issubclass(ModelNotFoundError, FileNotFoundError)


def test_resolving_writes_nothing(home: Path, cache: Path) -> None:
    for name in ("smollm2-135m", "org/name", "smol", "zzz"):
        with pytest.raises(ModelNotFoundError):
            resolve(name)
    assert not home.exists()
    assert not cache.exists()


# removing and the rest


def test_removing_an_unknown_model_names_the_near_installed_ones(home: Path) -> None:
    install("org/name")
    with pytest.raises(ModelNotFoundError, match=r"no model 'org/nam' is installed; .* org/name"):
        models.remove("org/nam")
    assert models.remove("org/name") == []
    assert models.installed() == []


def test_pulling_an_installed_model_touches_no_network(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = install("smollm2-135m")
    monkeypatch.setattr("data.pulls.fetch_model", None)
    assert models.pull("SMOLLM2-135m").path == path


@pytest.mark.parametrize("name", ["smollm2", "./a.gguf", "", "x y"])
def test_pulling_an_unknown_name_says_what_can_be_pulled(home: Path, name: str) -> None:
    with pytest.raises(ModelNotFoundError, match=r"to pull.*org/name/file\.gguf"):
        models.pull(name)


def test_public_names_exist_and_nothing_heavy_is_imported_for_them() -> None:
    assert [name for name in data.__all__ if getattr(data, name) is None] == []
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = data.nothing
    heavy = ["huggingface_hub", "numpy", "platformdirs", "ssl", "urllib.request", "zipfile"]
    code = f"import sys, data.models; print(*[name for name in {heavy} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=True
    )
    assert done.stdout.strip() == ""


def test_the_catalogue_is_what_the_registry_returns() -> None:
    assert models.registry() == catalogue.models()


# models that training left


def test_a_model_that_training_left_is_found_by_its_name(home: Path) -> None:
    folder = directory(paths.models_dir() / "mine")
    found = resolve("mine")
    assert (found.name, found.path, found.source) == ("mine", folder, "trained")
    file = gguf(paths.models_dir() / "thin" / "thin.gguf")
    assert resolve("thin").path == file
    assert [model.name for model in models.trained()] == ["mine", "thin"]


def test_what_was_pulled_or_is_unfinished_is_no_trained_model(home: Path) -> None:
    install("pulled")
    (paths.models_dir() / "empty").mkdir(parents=True)
    (paths.models_dir() / "smollm2-135m").mkdir()
    gguf(paths.models_dir() / "smollm2-135m" / "half.gguf")
    assert models.trained() == []
    with pytest.raises(ModelNotFoundError, match="no model 'empty'"):
        resolve("empty")
