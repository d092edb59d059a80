from __future__ import annotations

import os
from pathlib import Path

import pytest

from data.mixture import Source, parse_mixture

# of these Windows allows no colons in names
colons = pytest.mark.skipif(os.name == "nt", reason="a colon is of the drive there")


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["a.jsonl", "b.jsonl", "one,two.jsonl"]
    for name in names if os.name == "nt" else [*names, "c:1.jsonl", r"C:\data\a.jsonl", "d:2", "d"]:
        Path(name).write_text("")
    Path("folder").mkdir()


@pytest.mark.parametrize(
    ("spec", "sources"),
    [
        ("a.jsonl", [("a.jsonl", None)]),
        ("a.jsonl:2,folder:.5", [("a.jsonl", 2.0), ("folder", 0.5)]),
        (" a.jsonl:1e-3 , folder/ ", [("a.jsonl", 0.001), ("folder/", None)]),
        ("one,two.jsonl", [("one,two.jsonl", None)]),
        (
            "a.jsonl:1,one,two.jsonl:3,b.jsonl",
            [("a.jsonl", 1.0), ("one,two.jsonl", 3.0), ("b.jsonl", None)],
        ),
    ],
)
def test_sources_and_weights(spec: str, sources: list[tuple[str, float | None]]) -> None:
    assert parse_mixture(spec) == [Source(*source) for source in sources]


@colons
@pytest.mark.parametrize(
    ("spec", "sources"),
    [
        ("c:1.jsonl", [("c:1.jsonl", None)]),
        ("c:1.jsonl:4,a.jsonl", [("c:1.jsonl", 4.0), ("a.jsonl", None)]),
        (r"C:\data\a.jsonl", [(r"C:\data\a.jsonl", None)]),
        (r"C:\data\a.jsonl:2,a.jsonl:1", [(r"C:\data\a.jsonl", 2.0), ("a.jsonl", 1.0)]),
        ("d:2", [("d:2", None)]),  # what exists goes before a weight
        ("d:3", [("d", 3.0)]),
    ],
)
def test_colons_in_names(spec: str, sources: list[tuple[str, float | None]]) -> None:
    assert parse_mixture(spec) == [Source(*source) for source in sources]


def test_a_path_may_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert parse_mixture("~/a.jsonl:2") == [Source("~/a.jsonl", 2.0)]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("x.jsonl", "there is no file or folder x.jsonl$"),
        ("x.jsonl:2", "there is no file or folder x.jsonl$"),
        (r"D:\x.jsonl", r"there is no file or folder D:\\x.jsonl$"),
        (r"D:\x.jsonl:0.5", r"there is no file or folder D:\\x.jsonl$"),
        ("a.jsonl:1,x.jsonl:2", "there is no file or folder x.jsonl in 'a.jsonl:1,x.jsonl:2'"),
        ("~nobody-of-this-name/x", "there is no file or folder ~nobody-of-this-name/x"),
        ("x" * 5000, "there is no file or folder xxx"),
        ("x\0", "there is no file or folder x"),
    ],
)
def test_a_missing_file_is_named(spec: str, message: str) -> None:
    with pytest.raises(FileNotFoundError, match=message):
        parse_mixture(spec)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "there is no name of a file, got ''"),
        ("a.jsonl,,folder", "there is no name of a file in 'a.jsonl,,folder'"),
        ("a.jsonl,", "there is no name of a file in 'a.jsonl,'"),
        (":2", "there is no file"),
        ("a.jsonl:0", "the weight of a.jsonl is '0' in 'a.jsonl:0'; it must be a number above 0"),
        ("a.jsonl:-1", "the weight of a.jsonl is '-1'"),
        ("a.jsonl:nan", "the weight of a.jsonl is 'nan'"),
        ("a.jsonl:inf", "the weight of a.jsonl is 'inf'"),
        ("a.jsonl:much", "the weight of a.jsonl is 'much'"),
        ("a.jsonl:", "the weight of a.jsonl is ''"),
        ("a.jsonl,a.jsonl:2", "a.jsonl stands twice in"),
        ("https://host:80/a.jsonl:1", "https://host:80/a.jsonl:1 is an address; download it"),
    ],
)
def test_what_is_wrong_is_said(spec: str, message: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        parse_mixture(spec)
