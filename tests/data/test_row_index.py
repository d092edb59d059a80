from __future__ import annotations

import gzip
import json
import os
import tracemalloc
from pathlib import Path

import pytest

from data import files, paths, row_index
from data.row_index import open_index

LINES = b'{"text": "one"}\n\n{"text": "two"}\n{"text": "three"}\n'
STARTS = [[0, 1], [17, 3], [33, 4], [51, 5]]

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of indexes, in which small files have theirs too."""
    monkeypatch.setattr(row_index, "SMALL_BYTES", 0)
    return paths.cache_dir() / "rows"


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.suffix for path in folder.iterdir())


def test_a_small_file_is_indexed_in_memory(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", LINES)
    index = open_index(path)
    assert (index.content, index.size, index.layout, index.damage) == (path, 51, "lines", "")
    assert index.units.tolist() == STARTS
    assert index.n_rows == 3
    assert not paths.cache_dir().exists()


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    index = open_index(written(tmp_path / "a.jsonl", b"\xef\xbb\xbf" + LINES))
    assert index.units.tolist() == [[offset + 3, line] for offset, line in STARTS]
    assert index.digest == open_index(written(tmp_path / "b.jsonl", LINES)).digest


def test_the_index_of_a_large_file_is_kept(
    tmp_path: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "a.jsonl", LINES)
    assert open_index(path).units.tolist() == STARTS
    assert names(kept) == [".json", ".units"]
    monkeypatch.setattr(row_index, "_make", lambda *args: pytest.fail("it is made again"))
    again = open_index(path)
    assert (again.units.tolist(), again.content, again.layout) == (STARTS, path, "lines")


def test_a_compressed_file_is_unpacked_once_and_has_the_same_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "a.jsonl.gz", gzip.compress(LINES))
    index = open_index(path)
    assert index.content.read_bytes() == LINES
    assert index.units.tolist() == STARTS
    assert index.digest == open_index(written(tmp_path / "a.jsonl", LINES)).digest
    monkeypatch.setattr(row_index, "_unpack", lambda *args: pytest.fail("it is unpacked again"))
    assert open_index(path).content == index.content


def test_a_changed_file_gets_another_index_and_the_old_one_goes(tmp_path: Path, kept: Path) -> None:
    path = written(tmp_path / "a.jsonl.gz", gzip.compress(LINES))
    gone = written(tmp_path / "b.jsonl.gz", gzip.compress(LINES))
    first = open_index(path)
    open_index(gone)
    assert names(kept) == [".content"] * 2 + [".json"] * 2 + [".units"] * 2
    gone.unlink()
    written(path, gzip.compress(LINES + LINES))
    os.utime(path, ns=(1, 1))
    second = open_index(path)
    assert (first.n_rows, second.n_rows) == (3, 6)
    assert names(kept) == [".content", ".json", ".units"]


@pytest.mark.parametrize("kind", [".json", ".units", ".content"])
def test_a_damaged_index_is_made_again(kind: str, tmp_path: Path, kept: Path) -> None:
    path = written(tmp_path / "a.jsonl.gz", gzip.compress(LINES))
    open_index(path)
    (torn,) = kept.glob(f"*{kind}")
    torn.write_bytes(torn.read_bytes()[:-5])
    index = open_index(path)
    assert index.units.tolist() == STARTS
    assert index.content.read_bytes() == LINES


def test_what_a_killed_process_left_goes_after_a_day(tmp_path: Path, kept: Path) -> None:
    kept.mkdir(parents=True)
    old = [kept / "a.content.tmp-1", kept / "b.units", kept / "c.json"]
    for path in [*old, kept / "d.units.tmp-2"]:
        path.write_bytes(b"{}")
    for path in old:
        os.utime(path, (1, 1))
    open_index(written(tmp_path / "a.jsonl", LINES))
    assert sorted(p.name for p in kept.iterdir() if len(p.stem) < 10) == ["d.units.tmp-2"]


def test_many_rows_are_written_in_parts(
    tmp_path: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_index, "_FLUSH", 4)
    assert open_index(written(tmp_path / "a.jsonl", LINES)).units.tolist() == STARTS


def test_of_a_large_file_no_more_than_a_part_is_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    row = json.dumps({"text": "x" * 990}).encode() + b"\n"
    with path.open("wb") as file:
        for _ in range(60):
            file.write(row * 1000)
    open_index(written(tmp_path / "b.jsonl", LINES * 40_000))  # whatever is imported, is
    tracemalloc.start()
    index = open_index(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert index.n_rows == 60_000
    assert peak < 3_000_000


@pytest.mark.parametrize(
    ("content", "starts", "content_left"),
    [
        (LINES, [[0, 1], [17, 3], [33, 4]], LINES[:-4]),  # the last row is torn: it is none
        (LINES[:33] + b"{}\n\n", [*STARTS[:3], [36, 5]], LINES[:33] + b"{}\n"),
    ],
)
def test_the_rows_before_a_tear_are_there(
    content: bytes,
    starts: list[list[int]],
    content_left: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unpack(path: Path, target: Path) -> str:
        target.write_bytes(content_left)
        return "it ends in the middle of its compressed data"

    monkeypatch.setattr(row_index, "_unpack", unpack)
    index = open_index(written(tmp_path / "a.jsonl.gz", gzip.compress(content)))
    assert index.damage == "it ends in the middle of its compressed data"
    assert index.units.tolist() == starts


def test_a_torn_file_is_read_up_to_the_tear(tmp_path: Path) -> None:
    rows = [json.dumps({"text": os.urandom(500).hex()}) for _ in range(100)]
    packed = gzip.compress("\n".join(rows).encode())
    index = open_index(written(tmp_path / "a.jsonl.gz", packed[: len(packed) // 2]))
    assert 20 < index.n_rows < 60
    assert index.units[-1, 1] == index.n_rows + 1
    assert index.damage == "it ends in the middle of its compressed data"


def test_a_list_that_is_damaged_keeps_the_rows_before(tmp_path: Path) -> None:
    index = open_index(written(tmp_path / "a.json", b'[{"a": 1},\n{"a": 2},\n{"a" 3}]'))
    assert index.n_rows == 2
    assert index.damage == "it is no JSON: Expecting ':' delimiter"
    assert index.units[-1].tolist() == [21, 3]
    assert index.size == 29


def test_a_full_disk_is_said(tmp_path: Path, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unpack(path: Path, target: Path) -> str:
        target.write_bytes(b"{}")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(row_index, "_unpack", unpack)
    with pytest.raises(files.DiskFullError, match="the disk is full"):
        open_index(written(tmp_path / "a.jsonl.gz", gzip.compress(LINES)))
    assert list(kept.iterdir()) == []
