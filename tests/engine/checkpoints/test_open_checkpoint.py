"""engine.checkpoints.open_checkpoint and what it says of paths that are not checkpoints."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.checkpoints import CONTAINERS, open_checkpoint, sha256_of


def test_containers_are_found_by_file_name() -> None:
    assert CONTAINERS == ["gguf", "huggingface", "llama2c"]


def test_nothing_at_the_path_is_a_file_not_found_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.gguf: no such file or directory$"):
        open_checkpoint(tmp_path / "nothing.gguf")


def test_a_directory_without_config_names_the_gguf_file_in_it(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").touch()
    with pytest.raises(ValueError, match=r"it holds model\.gguf, name that file instead$"):
        open_checkpoint(tmp_path)


def test_an_empty_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a directory without config\.json; a model is a GGUF"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "pytorch_model.bin"])
def test_one_file_of_a_directory_points_to_the_directory(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("{}")
    with pytest.raises(ValueError, match=r"name the directory instead$"):
        open_checkpoint(tmp_path / name)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ValueError, match=r"notes\.txt: not a GGUF file"):
        open_checkpoint(tmp_path / "notes.txt")


def test_a_gguf_file_is_known_by_its_content(write_gguf: Callable[..., Path]) -> None:
    path = write_gguf()
    blob = path.rename(path.with_name("b179c9523d0e6a0f"))  # as hub caches name their blobs
    assert open_checkpoint(blob).path == blob


def test_common_files_are_read_without_the_gguf_package(write_gguf: Callable[..., Path]) -> None:
    code = (
        "import sys, pathlib; from engine.checkpoints import open_checkpoint as o\n"
        "c = o(pathlib.Path(sys.argv[1])); c.decoder_config(); c.tensor('layers.0.wq').float32()\n"
        "print({'gguf', 'torch', 'numba', 'transformers', 'safetensors'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", code, str(write_gguf())]
    root = Path(__file__).parents[3]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "set()"


def test_the_fingerprint_of_one_file_is_its_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"weights")
    assert sha256_of([tmp_path / "a"]) == hashlib.sha256(b"weights").hexdigest()


def test_the_fingerprint_of_several_files_depends_on_each_content_and_name(tmp_path: Path) -> None:
    a, b, c = (tmp_path / name for name in "abc")
    a.write_bytes(b"1")
    b.write_bytes(b"2")
    c.write_bytes(b"2")
    assert len({sha256_of([a, b]), sha256_of([a, c]), sha256_of([b, a]), sha256_of([b, c])}) == 4
