from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from typing import Any

import docx
import pytest

from data.documents import DocumentError
from data.readers import Limits
from tests.data.readers.conftest import Read

BODY = "word/document.xml"


def docx_of(fill: Callable[[Any], object]) -> bytes:
    document = docx.Document()
    fill(document)
    file = io.BytesIO()
    document.save(file)
    return file.getvalue()


def changed(content: bytes, change: Callable[[str], str], part: str = BODY) -> bytes:
    """The file with one part rewritten."""
    out = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(content)) as old,
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            text = old.read(name)
            new.writestr(name, change(text.decode()) if name == part else text)
    return out.getvalue()


def with_body(inner: str) -> bytes:
    def put(xml: str) -> str:
        return xml.replace("<w:body>", f"<w:body>{inner}", 1)

    return changed(docx_of(lambda document: None), put)


def paragraph(text: str) -> str:
    return f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>"


def test_paragraphs_lists_and_tables_come_under_their_headings(read_as: Read) -> None:
    def fill(document: Any) -> None:
        document.core_properties.title = "The report"
        document.add_paragraph("Before.")
        document.add_heading("One", 1)
        document.add_paragraph("Text\twith a tab.")
        document.add_heading("Two", 2)
        document.add_paragraph("first", style="List Bullet")
        table = document.add_table(2, 2)
        for n, cell in enumerate(("Name", "Size", "Zug", "5")):
            table.cell(n // 2, n % 2).text = cell
        document.add_heading("Three", 1)
        document.add_paragraph("End.")

    (document,) = read_as("a.docx", docx_of(fill))
    assert document.text == (
        "Before.\n\nOne\n\nText\twith a tab.\n\nTwo\n\nfirst\nName | Size\nZug | 5\n\nThree\n\nEnd."
    )
    assert document.title == "The report"
    assert [section.headings for section in document.sections] == [
        (),
        ("One",),
        ("One", "Two"),
        ("Three",),
    ]


def test_styles_based_on_a_heading_are_headings(read_as: Read) -> None:
    def fill(document: Any) -> None:
        from docx.enum.style import WD_STYLE_TYPE

        style = document.styles.add_style("Chapter", WD_STYLE_TYPE.PARAGRAPH)
        style.base_style = document.styles["Heading 1"]
        document.add_paragraph("One", style="Chapter")
        document.add_paragraph("Text.")

    (document,) = read_as("a.docx", docx_of(fill))
    assert (document.title, len(document.sections)) == ("One", 1)


def test_inserted_text_counts_and_deleted_text_does_not(read_as: Read) -> None:
    run = "<w:r><w:t>{}</w:t></w:r>"
    inner = (
        f"<w:p><w:ins>{run.format('new ')}</w:ins><w:del>{run.format('old')}</w:del>"
        f"<w:hyperlink>{run.format('link')}</w:hyperlink></w:p>"
        f"<w:sdt><w:sdtContent>{paragraph('controlled')}</w:sdtContent></w:sdt>"
    )
    assert read_as("a.docx", with_body(inner))[0].text == "new link\n\ncontrolled"


def test_a_zip_bomb_is_refused_before_it_is_unpacked(read_as: Read) -> None:
    bomb = changed(docx_of(lambda document: None), lambda xml: xml + " " * 30_000_000)
    with pytest.raises(DocumentError, match="more than 100 times as many; it may be a zip bomb"):
        read_as("a.docx", bomb)
    with pytest.raises(DocumentError, match="more than 300 times as many"):
        read_as("a.docx", bomb, Limits(max_expansion=300))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_xml_that_defines_entities_is_refused(read_as: Read, encoding: str) -> None:
    def put(xml: str) -> str:
        return xml.replace("?>", '?><!DOCTYPE x [<!ENTITY a "lol">]>', 1)

    content = docx_of(lambda document: None)
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            text = old.read(name)
            new.writestr(name, put(text.decode()).encode(encoding) if name == BODY else text)
    with pytest.raises(DocumentError, match="its XML defines entities"):
        read_as("a.docx", out.getvalue())


def test_xml_nested_too_deeply_is_refused(read_as: Read) -> None:
    with pytest.raises(DocumentError, match="it is no readable docx"):
        read_as("a.docx", with_body("<w:sdt><w:sdtContent>" * 10_000))


def test_an_external_part_is_not_fetched(read_as: Read) -> None:
    def put(xml: str) -> str:
        return xml.replace(
            "</Relationships>",
            '<Relationship Id="rId99" TargetMode="External" Target="file:///etc/hostname" '
            'Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/image"/>'
            "</Relationships>",
        )

    content = docx_of(lambda document: document.add_paragraph("Text."))
    assert (
        read_as("a.docx", changed(content, put, "word/_rels/document.xml.rels"))[0].text == "Text."
    )


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04" + b"x" * 100])
def test_what_is_no_docx_is_refused(read_as: Read, content: bytes) -> None:
    with pytest.raises(DocumentError, match=r"a\.docx: it is no whole docx \("):
        read_as("a.docx", content)


def test_another_zip_file_is_refused(read_as: Read) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a.txt", "text")
    with pytest.raises(DocumentError, match="it is no readable docx"):
        read_as("a.docx", out.getvalue())


def test_a_docx_without_text_is_refused(read_as: Read) -> None:
    with pytest.raises(DocumentError, match="there is no text in it"):
        read_as("a.docx", docx_of(lambda document: None))
