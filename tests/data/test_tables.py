from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from data import tables
from data.documents import Document, DocumentError
from data.tables import rows

ROWS: list[dict[str, Any]] = [
    {"text": "One. ", "title": "First", "url": "https://example.org/1", "id": 5},
    {"text": "  ", "title": "Empty"},
    {"text": "Two.", "title": None, "url": ""},
    {"text": "Dritter Ört.", "title": " Third "},
]


def write(path: Path, values: list[dict[str, Any]]) -> Path:
    if path.name.endswith(".parquet"):
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(values), path)
        return path
    content = "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def read_until_error(path: Path) -> tuple[list[Document], str]:
    found: list[Document] = []
    with pytest.raises(DocumentError) as caught:
        found.extend(rows(path))
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    return found, str(caught.value)


@pytest.fixture(params=["a.jsonl", "a.jsonl.gz", "a.ndjson", "a.parquet"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / request.param


def test_rows_with_text_become_documents(path: Path) -> None:
    first, second, third = rows(write(path, ROWS))
    assert (first.uri, first.title, first.text) == (f"{path.as_posix()}#1", "First", "One.")
    assert first.metadata == {"row": "1", "mime": "text/plain", "url": "https://example.org/1"}
    assert (second.uri, second.title) == (f"{path.as_posix()}#3", path.stem)
    assert "url" not in second.metadata
    assert (third.title, third.text) == ("Third", "Dritter Ört.")


def test_reading_goes_on_behind_a_row(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_BATCH", 7)
    write(path, [{"text": f"Text {n}.", "title": f"T{n}"} for n in range(30)])
    whole = list(rows(path))
    assert len(whole) == 30
    for start in (0, 1, 6, 7, 8, 29, 30):
        assert list(rows(path, start)) == whole[start:]


def test_a_column_that_is_no_text_is_named_with_its_row(path: Path) -> None:
    write(path, [{"text": 5, "title": "T"}])
    assert "row 1 has int as the type of its text" in read_until_error(path)[1]


def test_a_table_without_texts_is_refused(path: Path) -> None:
    write(path, [{"body": "One.", "title": "T"}])
    assert "text" in read_until_error(path)[1]


def test_only_the_wanted_columns_of_parquet_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [{"text": "One.", "vector": [1.0] * 10}])
    assert [document.title for document in rows(path)] == ["a"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"{nonsense", "line 2 is no JSON"),
        (b'"text"', "line 2 is no object"),
        (b"[" * 100_000, "line 2 is no JSON"),
        (b'{"text": "\xff"}', "line 2 is not UTF-8"),
        (b"x" * 3000, "longer than"),
    ],
)
def test_a_bad_line_ends_the_reading_behind_the_lines_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: bytes, said: str
) -> None:
    if said == "longer than":
        monkeypatch.setattr(tables, "_MAX_LINE", 1000)
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "One."}\n' + line + b"\n")
    found, error = read_until_error(path)
    assert [document.text for document in found] == ["One."]
    assert said in error


def test_a_byte_order_mark_and_blank_lines_are_no_errors(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "One."}\r\n\r\n{"text": "Two."}')
    assert [document.uri.rpartition("#")[2] for document in rows(path)] == ["1", "3"]


def test_a_truncated_gzip_gives_what_comes_before_the_cut(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl.gz", [{"text": f"{n} " * 50} for n in range(2000)])
    path.write_bytes(path.read_bytes()[:-2000])
    found, error = read_until_error(path)
    assert 0 < len(found) < 2000 and "cut short or damaged" in error


@pytest.mark.parametrize("content", [b"", b"PAR1 nothing", b"\x00" * 100])
def test_a_damaged_parquet_file_is_one_line(tmp_path: Path, content: bytes) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "a.parquet"
    path.write_bytes(content)
    assert "no readable parquet" in read_until_error(path)[1]


def test_a_parquet_file_that_is_cut_is_one_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [{"text": f"Text {n}."} for n in range(500)])
    path.write_bytes(path.read_bytes()[:-20])
    assert "no readable parquet" in read_until_error(path)[1]


def test_other_kinds_of_files_and_missing_ones_are_refused(tmp_path: Path) -> None:
    assert ".parquet" in read_until_error(tmp_path / "a.csv")[1]
    assert "no such file" in read_until_error(tmp_path / "a.jsonl")[1]
    (tmp_path / "b.jsonl").mkdir()
    assert "no such file" in read_until_error(tmp_path / "b.jsonl")[1]
