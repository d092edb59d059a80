from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from data import readers
from data.documents import DocumentError
from data.readers import KINDS, Limits, Source, kind_of, read
from tests.data.readers.conftest import Read
from tests.data.readers.pdf_writer import pdf_of


def test_the_public_names_are_there() -> None:
    assert all(hasattr(readers, name) for name in readers.__all__)
    with pytest.raises(AttributeError, match="no attribute 'files_on'"):
        _ = readers.files_on  # type: ignore[attr-defined]


def test_no_suffix_belongs_to_two_kinds() -> None:
    suffixes = [suffix for kind in KINDS for suffix in readers._reader(kind).SUFFIXES]
    assert len(suffixes) == len(set(suffixes)) == len(readers._table())
    assert all(suffix == suffix.casefold() for suffix in suffixes)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.txt", "text"),
        ("A.TXT", "text"),
        ("README", "text"),
        ("b/README.md", "markdown"),
        ("a.html", "html"),
        ("a.PDF", "pdf"),
        ("a.docx", "docx"),
        ("a.json", "json"),
        ("a.jsonl", "jsonl"),
        ("a.csv", "csv"),
        ("a.py", "code"),
        ("Makefile", "code"),
    ],
)
def test_the_name_of_a_file_says_its_kind(name: str, kind: str) -> None:
    found = kind_of(name)
    assert found and found[0] == kind


@pytest.mark.parametrize("name", ["a.xyz", "a", "txt", ".txt.", "a.exe"])
def test_an_unknown_name_has_no_kind(name: str) -> None:
    assert kind_of(name) is None


def test_no_parser_is_imported_before_it_is_needed(tmp_path: Path) -> None:
    # the parsers run in the child; this process never sees them
    path = tmp_path / "a.html"
    path.write_text("<p>text")
    code = (
        "import sys; from data.readers import read, files_in; import data.chunks\n"
        f"assert [d.text for d in read({str(path)!r})] == ['text']\n"
        "print(*{'pypdf', 'docx', 'lxml', 'selectolax', 'charset_normalizer', 'numpy'} & "
        "set(sys.modules))"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert (done.stdout.strip(), done.stderr) == ("", "")


def test_the_address_of_a_document_is_the_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text("text")
    monkeypatch.chdir(tmp_path)
    (document,) = read("a.txt")
    assert document.uri == (tmp_path / "a.txt").as_posix()


def test_a_file_of_unknown_suffix_is_read_as_text(read_as: Read) -> None:
    (document,) = read_as("notes.xyz", "Some notes.")
    assert (document.title, document.text) == ("notes", "Some notes.")
    assert document.metadata == {"mime": "text/plain", "lines": "yes"}


def test_a_pdf_of_unknown_suffix_is_known_by_its_first_bytes(read_as: Read) -> None:
    (document,) = read_as("download", pdf_of(["Hello"]))
    assert document.text == "Hello"


@pytest.mark.parametrize("name", ["max_bytes", "max_pages", "max_chars", "max_seconds"])
def test_a_limit_of_zero_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be above 0, got 0"):
        Limits(**{name: 0})


def test_a_file_that_is_too_large_is_refused_by_name(read_as: Read, tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match=r"a\.txt: it is larger than 1 MB; split it, or raise"):
        read_as("a.txt", "x" * 1_000_001, Limits(max_bytes=1_000_000))


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.py", "a.html"])
def test_a_text_that_is_too_long_is_refused(read_as: Read, name: str) -> None:
    with pytest.raises(DocumentError, match=rf"{name}: it has more than 100 characters of text"):
        read_as(name, "word " * 100, Limits(max_chars=100))


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.py", "a.html", "a.jsonl", "a.csv"])
@pytest.mark.parametrize("content", ["", " \n\n "])
def test_a_file_without_text_is_refused(read_as: Read, name: str, content: str) -> None:
    with pytest.raises(DocumentError, match=rf"{name}: there is no text in it"):
        read_as(name, content)


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.py", "a.html", "a.json", "a.jsonl", "a.csv"])
def test_utf_16_is_read_by_every_reader_of_text(read_as: Read, name: str) -> None:
    words = '{"text": "Grüße"}' if "json" in name else "text\nGrüße"
    assert "Grüße" in read_as(name, words.encode("utf-16"))[0].text


def test_line_numbers_of_text_files_are_those_of_the_file(read_as: Read) -> None:
    (document,) = read_as("a.txt", b"one\r\ntwo\r\nthree\r\n")
    assert document.text.count("\n", 0, document.text.index("three")) == 2


def test_a_reader_in_a_child_that_sends_another_files_document_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forged(*given: object) -> object:
        yield {"uri": "/etc/passwd", "title": "", "text": "x", "sections": [], "metadata": {}}

    monkeypatch.setattr("data.isolation.call", forged)
    (tmp_path / "a.html").write_text("text")
    with pytest.raises(DocumentError, match=r"a\.html: its reader sent back nonsense"):
        list(read(tmp_path / "a.html"))


@pytest.mark.parametrize(
    ("uri", "stem"), [("/a/b.tar.gz", "b.tar"), ("/a/.hidden", ".hidden"), ("/a/b", "b")]
)
def test_the_stem_is_the_name_without_its_suffix(uri: str, stem: str) -> None:
    assert Source(uri, "").stem == stem
