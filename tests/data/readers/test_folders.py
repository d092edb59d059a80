from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from data.readers import Skipped, files_in

posix = pytest.mark.skipif(os.name != "posix", reason="pipes and sockets in folders are POSIX's")


def names(
    root: Path, globs: list[str] | None = None, exclude: list[str] | None = None
) -> list[str]:
    """The files that are read, relative to the root."""
    found = files_in(root, globs or (), exclude or ())
    return [p.relative_to(root).as_posix() for p in found if isinstance(p, Path)]


def skipped(root: Path) -> dict[str, str]:
    return {
        p.path.relative_to(root).as_posix(): p.reason
        for p in files_in(root)
        if isinstance(p, Skipped)
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for name in (
        "b.md", "a.txt", "C.PDF", "sub/c.html", "sub/deep/d.txt", "sub/deep/e.py", "z.exe",
        ".hidden.txt", ".git/config.txt", "node_modules/x.js", "README",
    ):  # fmt: skip
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("text")
    return root


def test_files_of_known_kinds_come_sorted(root: Path) -> None:
    assert names(root) == [
        "C.PDF", "README", "a.txt", "b.md", "sub/c.html", "sub/deep/d.txt", "sub/deep/e.py",
    ]  # fmt: skip


def test_what_is_not_read_comes_with_a_reason(root: Path) -> None:
    assert skipped(root) == {
        ".git": "hidden",
        ".hidden.txt": "hidden",
        "node_modules": "a folder of generated files",
        "z.exe": "of unknown kind; name it, or give a pattern that matches it, to read it as text",
    }


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ("*.txt", ["a.txt", "sub/deep/d.txt"]),
        ("sub", ["sub/c.html", "sub/deep/d.txt", "sub/deep/e.py"]),
        ("sub/", ["sub/c.html", "sub/deep/d.txt", "sub/deep/e.py"]),
        ("sub/*.html", ["sub/c.html"]),
        ("sub/*", ["sub/c.html", "sub/deep/d.txt", "sub/deep/e.py"]),
        ("sub/**/*.txt", ["sub/deep/d.txt"]),
        ("**/*.html", ["sub/c.html"]),
        ("**/d.*", ["sub/deep/d.txt"]),
        ("[ab].*", ["a.txt", "b.md"]),
        ("[!a].*", ["C.PDF", "b.md", "sub/c.html", "sub/deep/d.txt", "sub/deep/e.py", "z.exe"]),
        ("?.exe", ["z.exe"]),
        ("./a.txt", ["a.txt"]),
        ("deep/d.txt", []),
    ],
)
def test_globs_choose(root: Path, pattern: str, wanted: list[str]) -> None:
    assert names(root, [pattern]) == wanted


def test_several_globs_are_added_up_and_excluded_files_are_left_out(root: Path) -> None:
    assert names(root, ["*.txt", "*.md"], ["deep"]) == ["a.txt", "b.md"]
    assert names(root, exclude=["sub", "C.*"]) == ["README", "a.txt", "b.md"]


@pytest.mark.parametrize("pattern", ["", "/etc/*", "/"])
def test_a_pattern_that_matches_nothing_is_refused(root: Path, pattern: str) -> None:
    with pytest.raises(ValueError, match="patterns are relative"):
        list(files_in(root, [pattern]))


def test_a_file_that_is_named_comes_whatever_its_kind(root: Path) -> None:
    assert list(files_in(root / "z.exe")) == [root / "z.exe"]
    assert list(files_in(root / ".hidden.txt")) == [root / ".hidden.txt"]


def test_a_root_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"/nothing: it is not there \(any more\)$"):
        list(files_in(tmp_path / "nothing"))


def test_paths_are_absolute(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    assert all(isinstance(p, Skipped) or p.is_absolute() for p in files_in("."))


@pytest.fixture
def link() -> object:
    def make(path: Path, target: Path | str) -> None:
        try:
            path.symlink_to(target, target_is_directory=Path(target).is_dir())
        except OSError:
            pytest.skip("this user may not make links")

    return make


def test_links_do_not_lead_out_of_the_root(root: Path, tmp_path: Path, link: object) -> None:
    outside = tmp_path / "root of another"  # begins with the root's own name
    outside.mkdir()
    (outside / "secret.txt").write_text("secret")
    assert callable(link)
    link(root / "file.txt", outside / "secret.txt")
    link(root / "folder", outside)
    link(root / "up.txt", "../root of another/secret.txt")
    link(root / "twice.txt", root / "file.txt")
    found = skipped(root)
    for name in ("file.txt", "folder", "up.txt", "twice.txt"):
        assert found[name] == "a link that leaves the folder"
    assert not any("secret" in name for name in names(root))


def test_links_inside_of_the_root_are_read_but_for_folders(root: Path, link: object) -> None:
    assert callable(link)
    link(root / "again.txt", root / "sub" / "deep" / "d.txt")
    link(root / "loop", root)
    link(root / "gone.txt", root / "nothing.txt")
    assert "again.txt" in names(root)
    assert skipped(root)["loop"] == "a link to a folder; the folder itself is read"
    assert skipped(root)["gone.txt"] == "a link to nothing"


def test_a_root_that_is_a_link_is_followed(root: Path, tmp_path: Path, link: object) -> None:
    assert callable(link)
    link(tmp_path / "linked", root)
    assert names(tmp_path / "linked") == names(root)


@posix
def test_special_files_are_skipped(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(root / "pipe.txt")
    monkeypatch.chdir(root)  # the path of a socket is short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.txt")
        found = skipped(root)
    assert found["pipe.txt"] == "it is a pipe"
    assert found["socket.txt"] == "it is a socket"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_folder_with_an_undecodable_name_is_walked(root: Path) -> None:
    os.mkdir(os.fsencode(root) + b"/caf\xe9")
    (root / os.fsdecode(b"caf\xe9") / "x.txt").write_text("text")
    assert len(names(root)) == 8


def test_a_deep_folder_does_not_end_the_walk(tmp_path: Path) -> None:
    deep = tmp_path / "root"
    for _ in range(150):
        deep = deep / "d"
    deep.mkdir(parents=True)
    (deep / "a.txt").write_text("text")
    assert len(names(tmp_path / "root")) == 1
