"""The packed file: whole or not there, and mapped as it was written."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from engine.packed import ALIGNMENT, Entry, open_packed, write


def entries(*arrays: np.ndarray) -> list[Entry]:
    return [Entry(f"array {i}", a.nbytes, {"n": i}, lambda a=a: [a]) for i, a in enumerate(arrays)]


def test_arrays_come_back_mapped_aligned_and_with_their_attributes(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    arrays = [rng.integers(0, 255, n).astype(np.uint8) for n in (1, 64, 1000, 0)]
    write(tmp_path / "w", entries(*arrays))
    found = open_packed(tmp_path / "w")
    assert list(found) == ["array 0", "array 1", "array 2", "array 3"]
    for i, (data, attributes) in enumerate(found.values()):
        assert_array_equal(data, arrays[i])
        assert attributes == {"n": i}
        assert not data.flags.writeable
        assert data.size == 0 or data.ctypes.data % ALIGNMENT == 0


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    write(tmp_path / "w", entries(np.zeros(10, np.uint8)))

    def failing() -> list[np.ndarray]:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / "w", [Entry("a", 5, {}, failing)])
    assert [path.name for path in tmp_path.iterdir()] == ["w"]
    assert list(open_packed(tmp_path / "w")) == ["array 0"]


@pytest.mark.parametrize("durable", [True, False])
def test_only_what_must_last_waits_for_the_disk(
    tmp_path: Path, durable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    write(tmp_path / "w", entries(np.zeros(10, np.uint8)), durable)
    assert len(synced) == int(durable)
    assert list(open_packed(tmp_path / "w")) == ["array 0"]


@pytest.mark.parametrize("n", [0, 3, 8, 40, 100])
def test_a_truncated_file_is_refused_in_one_line(tmp_path: Path, n: int) -> None:
    write(tmp_path / "w", entries(np.arange(200, dtype=np.uint8)))
    whole = (tmp_path / "w").read_bytes()
    (tmp_path / "w").write_bytes(whole[:n])
    with pytest.raises(ValueError, match=r"^w is damaged: .*$"):
        open_packed(tmp_path / "w")


def test_a_lying_header_is_refused(tmp_path: Path) -> None:
    for header in (b'{"a": {"offset": 0, "n_bytes": 999}}', b'{"a": {"offset": -9, "n_bytes": 1}}',
                   b'{"a": 3}', b"[1]", b"not json"):  # fmt: skip
        (tmp_path / "w").write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 10)
        with pytest.raises(ValueError, match="damaged"):
            open_packed(tmp_path / "w")
