from __future__ import annotations

import os
import subprocess
import sys
import webbrowser
from pathlib import Path

import pytest

from bot.evidence import Source
from bot.opener import command_for, open_place


@pytest.fixture
def _no_editor(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("VISUAL", "EDITOR", "PAGER"):
        monkeypatch.delenv(variable, raising=False)


def source(uri: str, line: int | None = 3, url: str = "") -> Source:
    return Source(1, "T", uri, "text", 0.9, url=url, line=line)


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("EDITOR", "vim", ["vim", "+7", "/a b.md"]),
        ("EDITOR", "/usr/bin/emacsclient -nw", ["/usr/bin/emacsclient", "-nw", "+7", "/a b.md"]),
        ("VISUAL", "code --wait", ["code", "--wait", "--goto", "/a b.md:7"]),
        ("EDITOR", "hx", ["hx", "/a b.md:7"]),
        ("EDITOR", "my-editor", ["my-editor", "/a b.md"]),
        ("PAGER", "less -R", ["less", "-R", "+7", "/a b.md"]),
    ],
)
def test_the_editor_gets_the_line_in_its_own_way(
    _no_editor: None, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, words: list[str]
) -> None:
    monkeypatch.setenv(variable, value)
    assert command_for("/a b.md", 7) == words


def test_visual_beats_editor_beats_pager(_no_editor: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAGER", "less")
    monkeypatch.setenv("EDITOR", "vi")
    assert command_for("/a", 1) == ["vi", "+1", "/a"]
    monkeypatch.setenv("VISUAL", "nano")
    assert command_for("/a", 1) == ["nano", "+1", "/a"]


def test_without_variables_what_is_installed_is_taken(
    _no_editor: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}" if name == "more" else None)
    assert command_for("/a", 1) == ["more", "+1", "/a"]
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert command_for("/a", 1) is None


def test_an_editor_that_is_no_list_of_words_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISUAL", "vim 'x")
    with pytest.raises(ValueError, match="has no partner"):
        command_for("/a", 1)


def test_no_name_of_a_file_reaches_a_shell(
    _no_editor: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil = tmp_path / "$(touch owned); echo `id` & --help"
    evil.write_text("text")
    record = tmp_path / "record.py"
    record.write_text("import sys, pathlib; pathlib.Path(sys.argv[1]).write_text(sys.argv[2])")
    out = tmp_path / "out"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDITOR", f"{sys.executable} {record} {out}")
    assert open_place(source(str(evil))) == ""
    assert out.read_text() == str(evil)
    assert not (tmp_path / "owned").exists()


def test_an_editor_that_is_not_there_is_one_line(
    _no_editor: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text("x")
    monkeypatch.setenv("EDITOR", "no-such-editor-here")
    line = open_place(source(str(tmp_path / "a.txt")))
    assert line.startswith("no-such-editor-here could not be started")


@pytest.mark.parametrize("uri", ["/no/such/file", "relative.txt", "-rf"])
def test_a_file_that_is_gone_is_not_opened(monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *args, **more: pytest.fail("started"))
    assert "is not there any more" in open_place(source(uri))


def test_what_is_no_plain_text_is_left_to_its_own_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *args, **more: pytest.fail("started"))
    (tmp_path / "a.pdf").write_text("x")
    assert "is no plain text" in open_place(source(str(tmp_path / "a.pdf"), line=None))


def test_only_addresses_of_the_web_go_to_a_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda url: bool(opened.append(url)) or True)
    assert open_place(source("x", url="https://en.wikipedia.org/wiki/Zurich")) == ""
    for url in ("file:///etc/passwd", "javascript:alert(1)", "--help", "https://", "http://a\nb"):
        assert "is no address of the web" in open_place(source("x", url=url))
    assert opened == ["https://en.wikipedia.org/wiki/Zurich"]


def test_without_a_browser_the_address_is_left_to_the_reader(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(webbrowser, "open", lambda url: False)
    assert "no browser was found" in open_place(source("x", url="https://a.org"))


def test_a_row_opens_its_table(
    _no_editor: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "rows.csv"
    table.write_text("a,b\n")
    started: list[list[str]] = []
    monkeypatch.setenv("EDITOR", "vi")
    monkeypatch.setattr(subprocess, "run", lambda words, **more: started.append(words))
    assert open_place(source(f"{table}#1", line=2)) == ""
    assert started == [["vi", "+2", os.fspath(table)]]
