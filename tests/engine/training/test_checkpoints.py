"""Checkpoints are whole or not there, and damage is noticed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data.files import DiskFullError
from engine.training import checkpoints

ARRAYS = {
    "weights/a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "optimizer/codes": np.arange(5, dtype=np.uint8),
    "optimizer/step": np.array([7]),
    "optimizer/moves": np.ones(3),
    "optimizer/last": np.zeros((0,), np.int32),
}


def saved(folder: Path, *steps: int, keep: int = 2) -> list[Path]:
    return [checkpoints.save(folder, s, ARRAYS, {"at": s}, keep) for s in steps]


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    (path,) = saved(tmp_path, 12)
    found = checkpoints.load(path)
    assert (found.step, found.facts, path.name) == (12, {"at": 12}, "step-000012")
    assert found.arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert found.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(found.arrays[name], array)


def test_the_newest_are_kept(tmp_path: Path) -> None:
    saved(tmp_path, 1, 2, 10, 1_000_000)
    assert [path.name for path in checkpoints.steps(tmp_path)] == ["step-1000000", "step-000010"]


def test_a_step_that_is_made_again_is_saved_again(tmp_path: Path) -> None:
    saved(tmp_path, 5)
    path = checkpoints.save(tmp_path, 5, ARRAYS, {"at": "again"}, 2)
    assert checkpoints.load(path).facts == {"at": "again"}
    assert len(list(tmp_path.iterdir())) == 1


def test_what_a_killed_process_left_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / ".step-000009.tmp-123").mkdir(parents=True)
    (tmp_path / ".step-000009.tmp-123" / "state.safetensors").write_bytes(b"half")
    assert list(checkpoints.steps(tmp_path)) == []
    saved(tmp_path, 10)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000010"]


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("state.safetensors", None, "state.safetensors is missing"),
        ("state.safetensors", b"", "state.safetensors is not what was written"),
        ("state.json", None, "state.json is missing"),
        ("state.json", b'{"step": 1', "Expecting"),
        ("state.json", b"[]", "list indices must be integers"),
    ],
)
def test_damage_is_noticed(tmp_path: Path, file: str, content: bytes | None, said: str) -> None:
    (path,) = saved(tmp_path, 3)
    if content is None:
        (path / file).unlink()
    else:
        (path / file).write_bytes(content)
    with pytest.raises(ValueError, match=rf"step-000003 is damaged \({said}"):
        checkpoints.load(path)


def test_one_turned_bit_is_noticed(tmp_path: Path) -> None:
    (path,) = saved(tmp_path, 3)
    data = bytearray((path / "state.safetensors").read_bytes())
    data[-1] ^= 1
    (path / "state.safetensors").write_bytes(data)
    with pytest.raises(ValueError, match="not what was written"):
        checkpoints.load(path)


def test_the_arrays_are_a_safetensors_file_for_others(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    (path,) = saved(tmp_path, 3)
    np.testing.assert_array_equal(
        load_file(path / "state.safetensors")["weights/a"], ARRAYS["weights/a"]
    )


def test_a_full_disk_leaves_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path, 1)

    def full(folder: Path, n_bytes: int) -> None:
        raise DiskFullError("the disk is full")

    monkeypatch.setattr(checkpoints, "require_space", full)
    with pytest.raises(OSError, match="the disk is full"):
        saved(tmp_path, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001"]
