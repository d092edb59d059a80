from __future__ import annotations

from pathlib import Path

import pytest

from data.row_layout import layout_of


@pytest.mark.parametrize(
    ("name", "content", "layout"),
    [
        ("a.jsonl", b'{"text": "a"}\n', "lines"),
        ("a.JSONL", b"oops", "lines"),
        ("a.jsonl", b'[{"text": "a"}]', "list"),
        ("a.json", b' \n[{"text": "a"}]', "list"),
        ("a.json", b'\xef\xbb\xbf[{"text": "a"}]', "list"),
        ("a.json", b'\n{"text": "a"}\n{"text": "b"}\n', "lines"),
        ("a.json", b'{\n"text": "a"\n}\n', "object"),
        ("a.json", b"", "lines"),
        ("a.txt", b'{"text": "a"}', "passages"),
        ("a.md", b"[a](b)", "passages"),
        ("a", b'{"text": "a"}', "lines"),
        ("a", b'[{"text": "a"}]', "list"),
    ],
)
def test_the_layout_follows_from_name_and_content(
    name: str, content: bytes, layout: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert layout_of(path, name) == layout


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.jsonl", '{"text": "a"}'.encode("utf-16"), "it is UTF-16; save it as UTF-8"),
        ("a.txt", "a".encode("utf-32"), "it is UTF-(16|32); save it as UTF-8"),
        ("a.jsonl", '{"text": "a"}'.encode("utf-16-le"), "it is binary"),
        ("a.parquet", b"PAR1\0\0", "it is binary"),
        ("a.csv", b"a,b\n", "rows are read from .jsonl, .json and .txt files, packed as"),
        ("a", b"", "rows are read from"),
    ],
)
def test_other_files_are_refused(name: str, content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=reason):
        layout_of(path, name)
