"""Files that are damaged, hostile, endless or gone: each ends in text or in one DocumentError line.

Within the limits, whatever the bytes: nothing hangs, and no process is left, neither running nor as
a zombie.
"""

from __future__ import annotations

import io
import os
import random
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import docx
import pytest

from data import isolation
from data.chunks import chunks_of
from data.documents import Document, DocumentError
from data.readers import Limits, Skipped, files_in, read
from tests.data.readers.pdf_writer import pdf_of, pdf_of_streams

N_DAMAGED = 100
# a damaged file may cost no more than this; whole ones take a hundredth of it
LIMITS = Limits(max_seconds=20, max_memory_bytes=500_000_000)
posix = pytest.mark.skipif(os.name != "posix", reason="pipes and devices in folders are POSIX's")


@pytest.fixture(autouse=True)
def _no_processes_left() -> Iterator[None]:
    yield
    isolation.close()
    if os.name == "posix":
        with pytest.raises(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)


def outcome(path: Path, limits: Limits = LIMITS) -> list[Document] | str:
    """The documents, checked, or the line that says why there are none."""
    try:
        documents = list(read(path, limits))
    except DocumentError as error:
        line = str(error)
        assert line.startswith(f"{path.as_posix()}: ")
        assert "\n" not in line
        assert len(line) < len(str(path)) + 500
        return line
    for document in documents:
        document.text.encode()  # no lone surrogates
        assert "\0" not in document.text
        for chunk in chunks_of(document):
            assert chunk.text == document.text[chunk.start : chunk.end]
    return documents


def refusal(path: Path, limits: Limits = LIMITS) -> str:
    found = outcome(path, limits)
    assert isinstance(found, str)
    return found


def whole_pdf(*, compressed: bool) -> bytes:
    pages = [f"Page {n} has words.\nAnd (some) more of them." for n in range(5)]
    return pdf_of(pages, "A title", compressed=compressed)


def whole_docx() -> bytes:
    document = docx.Document()
    for n in range(5):
        document.add_heading(f"Part {n}", 1)
        document.add_paragraph("Words of a paragraph. " * 10)
    document.add_table(2, 2).cell(0, 0).text = "cell"
    file = io.BytesIO()
    document.save(file)
    return file.getvalue()


def truncated(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.randrange(len(content))]


def flipped(content: bytes, chance: random.Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(chance.choice((1, 1, 3, 10))):
        damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
    return bytes(damaged)


WHOLE = {
    "plain.pdf": lambda: whole_pdf(compressed=False),
    "packed.pdf": lambda: whole_pdf(compressed=True),
    "a.docx": whole_docx,
}


@pytest.mark.parametrize("damage", [truncated, flipped])
@pytest.mark.parametrize("name", sorted(WHOLE))
def test_damaged_files_end_in_text_or_one_line(
    tmp_path: Path, name: str, damage: Callable[[bytes, random.Random], bytes]
) -> None:
    chance = random.Random(0)
    content = WHOLE[name]()
    path = tmp_path / name
    path.write_bytes(content)
    assert isinstance(outcome(path), list)
    for _ in range(N_DAMAGED):
        path.write_bytes(damage(content, chance))
        outcome(path)
    path.write_bytes(content)
    assert isinstance(outcome(path), list)


@pytest.mark.parametrize(
    "suffix", [".html", ".json", ".jsonl", ".csv", ".md", ".txt", ".py", ".xyz"]
)
def test_random_bytes_end_in_text_or_one_line(tmp_path: Path, suffix: str) -> None:
    chance = random.Random(0)
    path = tmp_path / f"a{suffix}"
    for n in range(30):
        content = chance.randbytes(chance.randrange(2_000))
        # every other one without the zero bytes that give it away
        path.write_bytes(content.translate(None, b"\0") if n % 2 else content)
        outcome(path)


def test_a_pdf_whose_pages_are_their_own_children_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(
        whole_pdf(compressed=False).replace(b"/Kids [4 0 R 6 0 R", b"/Kids [2 0 R 2 0 R")
    )
    outcome(path)


def test_a_pdf_that_never_ends_is_ended(tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    stream = b"BT /F1 12 Tf " + b"1 0 0 1 5 5 Tm (ab) Tj " * 2_000_000 + b"ET"
    path.write_bytes(pdf_of_streams([stream], compressed=True))
    assert path.stat().st_size < 500_000
    limits = Limits(max_seconds=1, max_memory_bytes=1_000_000_000)
    assert refusal(path, limits).endswith(
        "it takes longer than 1 s to read; split it, or raise the limit max_seconds"
    )


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are Linux's")
def test_a_file_that_becomes_more_than_the_memory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("[" + "[]," * 3_000_000 + "[]]")
    assert "it takes more than 100 MB of memory to read" in refusal(
        path, Limits(max_memory_bytes=100_000_000)
    )


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".txt", ".md", ".py", ".html", ".csv", ".jsonl", ".json"])
def test_a_line_of_100_mb_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    with path.open("w") as file:
        file.write('"')
        for _ in range(100):
            file.write("words " * 166_666)
        file.write('"')
    assert "characters of text; split it" in refusal(path, Limits())


@pytest.mark.slow
@pytest.mark.parametrize("tag", ["div", "b", "span", "p", "dd", "ul", "table", "a", "font"])
def test_a_page_of_a_million_nested_tags_is_read_or_refused(tmp_path: Path, tag: str) -> None:
    path = tmp_path / "a.html"
    path.write_text(f"<{tag}>" * 1_000_000 + "x")
    outcome(path)


def test_a_program_named_as_a_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(Path(sys.executable).read_bytes()[:100_000])
    assert refusal(path).endswith(": it is binary (there are zero bytes in it)")


@posix
def test_pipes_and_devices_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.txt")
    assert refusal(tmp_path / "a.txt").endswith("it is a pipe, not a file to read")
    assert refusal(Path("/dev/zero")).endswith("it is a device, not a file to read")
    assert refusal(tmp_path).endswith("it is a folder, not a file to read")


@posix
def test_a_pipe_put_in_the_place_of_a_file_does_not_make_us_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("text")
    look = os.stat

    def looked(*given: object, **options: object) -> os.stat_result:
        found = look(*given, **options)  # type: ignore[arg-type]
        if given[0] == path and stat.S_ISREG(found.st_mode):
            path.unlink()
            os.mkfifo(path)
        return found

    monkeypatch.setattr(os, "stat", looked)
    assert refusal(path).endswith("it is a pipe, not a file to read")


def test_a_file_that_may_not_be_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("text")

    def denied(*given: object) -> int:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", denied)
        line = refusal(path)
    assert line.endswith("permission denied; make it readable, or leave it out")


def test_files_that_vanish_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "b").mkdir(parents=True)
    for name in ("a.txt", "b/c.txt", "d.txt"):
        (root / name).write_text("text")
    walk = files_in(root)
    first = next(walk)
    assert isinstance(first, Path)
    first.unlink()
    (root / "b" / "c.txt").unlink()
    (root / "b").rmdir()
    assert refusal(first).endswith("it is not there (any more)")
    assert list(walk) == [Skipped(root / "b", "it is not there (any more)"), root / "d.txt"]


@posix
def test_a_link_to_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").symlink_to("a.txt")
    assert len(refusal(tmp_path / "a.txt")) > len(str(tmp_path / "a.txt"))
    assert all(isinstance(found, Skipped) for found in files_in(tmp_path))


@pytest.mark.parametrize("name", ["a\0b.txt", "x" * 300 + ".txt"])
def test_names_that_no_file_can_have_are_refused(tmp_path: Path, name: str) -> None:
    refusal(tmp_path / name)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_name_that_is_no_unicode_is_refused(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9.txt"
    with open(path, "w") as file:
        file.write("text")
    with pytest.raises(DocumentError, match=r"its name is not valid Unicode; rename it") as caught:
        list(read(Path(os.fsdecode(path))))
    str(caught.value).encode()


def test_a_sparse_file_of_a_terabyte_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with path.open("wb") as file:
        try:
            file.truncate(1 << 40)
        except OSError:
            pytest.skip("this file system has no sparse files")
    assert "it is larger than 5 MB" in refusal(path, Limits(max_bytes=5_000_000))


def test_a_reader_that_cannot_be_started_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.html"
    path.write_text("<p>text")
    isolation.close()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    assert "no process can be started to read it in" in refusal(path)


def test_a_package_that_is_not_installed_is_named_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(whole_pdf(compressed=True))
    isolation.close()
    # the child looks for packages where this process does
    monkeypatch.setattr(sys, "path", [p for p in sys.path if "site-packages" not in p])
    assert refusal(path).endswith(
        "pdf files need the package pypdf; "
        "python -m pip install 'sparsechat[retrieval]' installs it"
    )
