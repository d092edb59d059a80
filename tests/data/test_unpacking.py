from __future__ import annotations

import builtins
import gzip
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from data.unpacking import DamagedError, inner_name, is_compressed, unpacked

# letters that do not pack well, so that there are several blocks
TEXT = bytes(random.Random(0).choices(b"abcdefghijklmnopqrstuvwxyz\n", k=400_000))
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "zst": zstandard.ZstdCompressor().compress,
}
packers = pytest.mark.parametrize("pack", PACKERS.values(), ids=PACKERS)


def written(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "a"
    path.write_bytes(content)
    return path


@packers
def test_the_content_comes_back(pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    packed = pack(TEXT)
    assert is_compressed(packed) and not is_compressed(TEXT)
    assert b"".join(unpacked(written(tmp_path, packed))) == TEXT


@packers
def test_files_one_after_another_are_one(pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    packed = pack(TEXT) + pack(b"") + pack(b"end")
    assert b"".join(unpacked(written(tmp_path, packed))) == TEXT + b"end"


@packers
@pytest.mark.parametrize("n_left", [0.5, 0.99])
def test_what_is_before_a_tear_can_be_read(
    n_left: float, pack: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    packed, got = pack(TEXT), b""
    with pytest.raises(DamagedError, match="it ends in the middle of its compressed data"):
        for block in unpacked(written(tmp_path, packed[: int(n_left * len(packed))])):
            got += block
    assert len(got) > 100_000 and TEXT.startswith(got)


@packers
def test_wrong_data_is_an_error(pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    packed = bytearray(pack(TEXT))
    packed[len(packed) // 2 : len(packed) // 2 + 2000] = bytes(2000)
    with pytest.raises(DamagedError, match="its compressed data is damaged"):
        for _ in unpacked(written(tmp_path, bytes(packed))):
            pass


def test_without_its_package_a_zst_file_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_import = builtins.__import__

    def imported(name: str, *args: Any) -> Any:
        if name == "zstandard":
            raise ModuleNotFoundError(name)
        return real_import(name, *args)

    monkeypatch.setattr(builtins, "__import__", imported)
    with pytest.raises(ValueError, match=r"zstandard is missing; .*'sparsechat\[train\]' installs"):
        next(unpacked(written(tmp_path, PACKERS["zst"](TEXT))))


@pytest.mark.parametrize(
    ("name", "inner"),
    [("a.jsonl.gz", "a.jsonl"), ("a.ZST", "a"), ("a.jsonl", "a.jsonl"), ("gz", "gz")],
)
def test_the_inner_name_is_without_the_suffix(name: str, inner: str) -> None:
    assert inner_name(name) == inner
