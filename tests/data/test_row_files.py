from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest

from data.datasets import BadRow, Row
from data.row_files import RowFile, files_of, open_row_file
from data.row_units import MAX_ROW_BYTES

pytestmark = pytest.mark.usefixtures("home")

TEXT = {"text": "Once."}


def opened(
    tmp_path: Path, content: bytes, name: str = "a.jsonl", kind: str | None = None
) -> RowFile:
    path = tmp_path / name
    path.write_bytes(content)
    return open_row_file(path, name, kind)


def everything(file: RowFile) -> list[Row | BadRow]:
    return [file.read(number) for number in range(file.n_rows)]


def jsonl(*records: object) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def test_rows_know_where_they_stand(tmp_path: Path) -> None:
    file = opened(tmp_path, b"\n" + jsonl(TEXT) + b"\n" + jsonl({"text": "Twice."}))
    assert everything(file) == [
        Row((), "Once.", "a.jsonl:2", "text"),
        Row((), "Twice.", "a.jsonl:4", "text"),
    ]


@pytest.mark.parametrize("indent", [None, 2])
def test_members_of_a_list_are_rows(indent: int | None, tmp_path: Path) -> None:
    rows = [{"instruction": "Add.", "input": str(n), "output": str(n)} for n in range(3)]
    file = opened(tmp_path, json.dumps(rows, indent=indent).encode() + b"\n", "a.json")
    lines = [1, 1, 1] if indent is None else [2, 7, 12]
    assert [row.origin for row in everything(file)] == [f"a.json:{line}" for line in lines]
    assert [isinstance(row, Row) and row.turns[1].content for row in everything(file)] == list(
        "012"
    )


def test_one_object_is_one_row(tmp_path: Path) -> None:
    content = json.dumps({"messages": [{"role": "assistant", "content": "Hi"}]}, indent=1).encode()
    (row,) = everything(opened(tmp_path, content, "a.json"))
    assert isinstance(row, Row) and row.kind == "messages"


def test_passages_of_a_text_are_rows(tmp_path: Path) -> None:
    content = b"One,\r\nmore.\r\n<|endoftext|>\r\n\r\nTwo.\r\n<|endoftext|>\r\n<|endoftext|>\r\n"
    assert everything(opened(tmp_path, content, "a.txt")) == [
        Row((), "One,\nmore.", "a.txt:1", "text"),
        Row((), "Two.", "a.txt:5", "text"),
    ]


def test_the_kind_is_what_most_of_the_first_rows_are(tmp_path: Path) -> None:
    oig = {"text": "<human>: a\n<bot>: b"}
    file = opened(tmp_path, b"oops\n" + jsonl(TEXT, oig, oig))
    assert file.kind == "oig"
    rows = everything(file)
    assert rows[1] == BadRow("a.jsonl:2", "there is neither <human>: nor <bot>: in its text")
    assert isinstance(rows[2], Row)


def test_a_kind_may_be_named(tmp_path: Path) -> None:
    file = opened(tmp_path, jsonl({"text": "<human>: a\n<bot>: b"}), kind="text")
    assert everything(file) == [Row((), "<human>: a\n<bot>: b", "a.jsonl:1", "text")]
    with pytest.raises(
        ValueError, match=r"b\.txt: it is plain text, there are no rows of kind 'oig'"
    ):
        opened(tmp_path, b"text", "b.txt", "oig")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": "a"', "it is no JSON: Expecting ',' delimiter at column 13"),
        (b'{"text": "a"} {"text": "b"}', "it is no JSON: something follows its value at column 14"),
        (b'{"text": "caf\xe9"}', r"it is not UTF-8 \(byte 0xe9 at its byte 14\); save the file as"),
        (b'["text"]', r"it is no JSON object \{…\}"),
        (b"3", "it is no JSON object"),
        (b'{"text": ' + b"[" * 100_000, "its values are nested too deeply"),
        (b'{"text": "a", "n": ' + b"1" * 5000 + b"}", "it is no JSON: Exceeds the limit"),
        (b'{"text": "\\ud83d"}', "half of a surrogate pair"),
        (b'{"text": 1}', "the field 'text' is a number, text is expected"),
        (b'{"txt": "a", "id": 1}', "the field 'text' is missing; its fields are 'txt', 'id'"),
        (b'{"text": "' + b"a" * MAX_ROW_BYTES + b'"}', "it has 16.8 MB; a row has at most 16.8 MB"),
    ],
    ids=str,
)
def test_a_wrong_row_says_what_is_wrong_and_the_others_are_read(
    line: bytes, reason: str, tmp_path: Path
) -> None:
    rows = everything(opened(tmp_path, jsonl(TEXT) + line + b"\n" + jsonl(TEXT)))
    assert [type(row) for row in rows] == [Row, BadRow, Row]
    assert rows[1].origin == "a.jsonl:2"
    with pytest.raises(ValueError, match=reason):
        raise ValueError(rows[1].reason)  # type: ignore[union-attr]


def test_without_a_kind_each_row_is_asked(tmp_path: Path) -> None:
    file = opened(tmp_path, jsonl({"q": "a"}, {"q": "b"}))
    assert file.kind is None
    assert everything(file)[1] == BadRow(
        "a.jsonl:2",
        "it is of no known kind; its fields are 'q', and the kinds are "
        "alpaca, bolt, messages, oig, text",
    )


def test_a_damaged_end_is_a_bad_row(tmp_path: Path) -> None:
    rows = [{"text": os.urandom(500).hex()} for _ in range(100)]
    packed = gzip.compress(jsonl(*rows))
    file = opened(tmp_path, packed[: len(packed) // 2], "a.jsonl.gz")
    *good, bad = everything(file)
    assert [row.text for row in good if isinstance(row, Row)] == [
        row["text"] for row in rows[: len(good)]
    ]
    assert bad == BadRow(
        f"a.jsonl.gz:{len(good) + 1}",
        f"it ends in the middle of its compressed data; {len(good)} rows before it can be read",
    )


def test_a_file_that_changes_meanwhile_is_not_read_further(tmp_path: Path) -> None:
    file = opened(tmp_path, jsonl(TEXT, TEXT))
    (tmp_path / "a.jsonl").write_bytes(jsonl(TEXT))
    with pytest.raises(OSError, match=r"a\.jsonl was changed while it was read; start again"):
        file.read(0)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"x\.jsonl cannot be read: no such file"):
        open_row_file(tmp_path / "x.jsonl", "x.jsonl", None)
    with pytest.raises(ValueError, match="/dev/null: it is no file to be read at any place"):
        open_row_file(Path(os.devnull), "/dev/null", None)
    with pytest.raises(ValueError, match=r"a\.csv: rows are read from \.jsonl, \.json and \.txt"):
        opened(tmp_path, b"a,b\n", "a.csv")


def test_a_folder_stands_for_its_files(tmp_path: Path) -> None:
    inside = ["b.jsonl", "a.json.gz", "x/c.txt.zst", "x/y/D.NDJSON"]
    outside = ["README.md", ".hidden.jsonl", ".git/e.jsonl", "f.csv", "x/g.py"]
    for name in inside + outside:
        path = tmp_path / "d" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    found = files_of(f"{tmp_path}/d/")
    assert [name for _, name in found] == [f"{tmp_path}/d/{name}" for name in sorted(inside)]
    assert all(path == Path(name) for path, name in found)


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_links_to_files_are_followed(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(jsonl(TEXT))
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.jsonl").symlink_to(tmp_path / "blob")
    (tmp_path / "d" / "b.jsonl").symlink_to(tmp_path / "nothing")
    assert [path.name for path, _ in files_of(str(tmp_path / "d"))] == ["a.jsonl"]


def test_a_folder_without_such_files_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there are no \.jsonl, \.json or \.txt files in this"):
        files_of(str(tmp_path))
