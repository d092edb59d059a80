from __future__ import annotations

import io

import pytest

from data.chunks import chunks_of
from data.documents import DocumentError, Section
from data.readers import Limits
from tests.data.readers.conftest import Read
from tests.data.readers.pdf_writer import pdf_of


@pytest.mark.parametrize("compressed", [False, True])
def test_every_page_with_text_is_a_section(read_as: Read, compressed: bool) -> None:
    pages = ["First page.\nSecond line.", "", "Third page."]
    (document,) = read_as("book.pdf", pdf_of(pages, "The book", compressed=compressed))
    assert document.text == "First page.\nSecond line.\n\nThird page."
    assert document.sections == (Section(0, 24, (), 1), Section(26, 37, (), 3))
    assert document.title == "The book"
    assert document.metadata == {"mime": "application/pdf", "pages": "3"}
    assert [chunk.page for chunk in chunks_of(document)] == [1, 3]


@pytest.mark.parametrize("title", ["", "untitled", "Microsoft Word - draft", "draft.docx"])
def test_titles_that_say_nothing_give_way_to_the_name(read_as: Read, title: str) -> None:
    assert read_as("report.pdf", pdf_of(["Text."], title))[0].title == "report"


def test_words_divided_at_the_end_of_a_line_are_joined(read_as: Read) -> None:
    page = "A well-known exam-\nple of a well-\nknown rule by Smith-\nJones."
    (document,) = read_as("a.pdf", pdf_of([page]))
    assert document.text == "A well-known example\nof a well-known\nrule by Smith-Jones\n."


def test_leader_dots_are_shortened(read_as: Read) -> None:
    (document,) = read_as("a.pdf", pdf_of(["Introduction . . . . . . . . . . 7\nPart......... 9"]))
    assert document.text == "Introduction … 7\nPart … 9"


def test_a_pdf_without_text_is_refused_with_a_way_out(read_as: Read) -> None:
    with pytest.raises(DocumentError, match=r"there is no text in it \(scanned pages\?\); run it"):
        read_as("scan.pdf", pdf_of(["", ""]))


def test_too_many_pages_are_refused(read_as: Read) -> None:
    with pytest.raises(DocumentError, match="it has 5 pages, more than 4; split it, or raise"):
        read_as("a.pdf", pdf_of(["x"] * 5), Limits(max_pages=4))


def test_too_much_text_is_refused(read_as: Read) -> None:
    with pytest.raises(DocumentError, match="it has more than 50 characters"):
        read_as("a.pdf", pdf_of(["twelve chars"] * 9), Limits(max_chars=50))


@pytest.mark.parametrize("content", [b"", b"%PDF", b"hello", b"%PDF-1.4\n", b"\0" * 2000])
def test_what_is_no_pdf_is_refused(read_as: Read, content: bytes) -> None:
    with pytest.raises(DocumentError, match=r"a\.pdf: it is no (readable pdf|PDF) \("):
        read_as("a.pdf", content)


@pytest.mark.parametrize("password", ["", "secret"])
def test_an_encrypted_pdf_opens_with_an_empty_password_only(read_as: Read, password: str) -> None:
    from pypdf import PdfWriter

    writer = PdfWriter(clone_from=io.BytesIO(pdf_of(["Hello"])))
    writer.encrypt(password, "owner", algorithm="RC4-128")
    file = io.BytesIO()
    writer.write(file)
    if password:
        with pytest.raises(DocumentError, match="it is protected by a password; save a copy"):
            read_as("a.pdf", file.getvalue())
    else:
        assert read_as("a.pdf", file.getvalue())[0].text == "Hello"


def test_a_damaged_page_does_not_lose_the_others(read_as: Read) -> None:
    good = pdf_of(["First.", "Second."])
    damaged = good.replace(b"/Contents 5 0 R", b"/Contents 9 9 R")
    (document,) = read_as("a.pdf", damaged)
    assert (document.text, document.sections[0].page) == ("Second.", 2)
