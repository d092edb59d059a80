"""PDF: the text layer, in sections by pages."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from data.documents import Document, Section

from . import Limits, Source
from ._bytes import too_long, within
from ._outline import line_of

if TYPE_CHECKING:
    from pypdf import PdfReader

SUFFIXES = {".pdf": "application/pdf"}
ISOLATED = True

_LIGATURES = str.maketrans(
    {"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st", "\0": None}
)
_HYPHENATED = re.compile(r"([^\W\d_]{2,40})[-\xad][ \t]{0,4}\n[ \t]{0,4}([^\W\d_]{2,40})")
# the dots that lead to the page in a table of contents
_LEADERS = re.compile(r"(?:[ \t]?\.){5,}+")
_COMPOUND = re.compile(r"[^\W\d_]{2,40}-[^\W\d_]{2,40}")
# titles that programs leave behind
_NO_TITLE = re.compile(
    r"untitled.{0,9}|(?:microsoft )?(?:word|powerpoint)\b.*"
    r"|.*\.(?:docx?|tex|dvi|indd|qxd|pdf|rtf|pptx?)",
    re.IGNORECASE,
)
_PAGE_GAP = "\n\n"


def parse(content: bytes, source: Source, limits: Limits) -> Iterator[Document]:
    """One document, titled by its metadata or the file's name; a section for each page."""
    from pypdf import PdfReader

    if b"%PDF-" not in content[:1024]:
        raise source.error("it is no PDF (it does not begin with %PDF-)")
    reader = PdfReader(io.BytesIO(content), strict=False)
    _unlock(reader, source)
    n_pages = len(reader.pages)
    if n_pages > limits.max_pages:
        raise source.error(
            f"it has {n_pages:,} pages, more than {limits.max_pages:,}; split it, or raise the "
            "limit max_pages"
        )
    parts: list[str] = []
    sections: list[Section] = []
    length = 0
    for number, text in enumerate(_joined(list(_pages(reader, n_pages, source, limits))), 1):
        if text:
            gap = _PAGE_GAP if parts else ""
            parts += (gap, text)
            sections.append(Section(length + len(gap), length + len(gap) + len(text), (), number))
            length = sections[-1].end
    if not parts:
        raise source.error("there is no text in it (scanned pages?); run it through OCR first")
    metadata = {"mime": source.mime, "pages": str(n_pages)}
    text = within("".join(parts), source, limits)
    yield Document(source.uri, _title(reader) or source.stem, text, tuple(sections), metadata)


def _unlock(reader: PdfReader, source: Source) -> None:
    """Open what is encrypted with an empty password, as viewers do."""
    from pypdf.errors import DependencyError

    if not reader.is_encrypted:
        return
    try:
        is_open = reader.decrypt("")
    except DependencyError as error:
        raise source.error(
            "it is encrypted with AES, which needs the package cryptography; install that, or save "
            "a copy without encryption"
        ) from error
    if not is_open:
        raise source.error("it is protected by a password; save a copy without one")


def _pages(reader: PdfReader, n_pages: int, source: Source, limits: Limits) -> Iterator[str]:
    """The text of each page. A damaged page is empty; when all are, the first fault is raised."""
    n_chars = n_faults = 0
    fault: Exception | None = None
    for number in range(n_pages):
        try:
            text = reader.pages[number].extract_text().translate(_LIGATURES).strip()
        except (MemoryError, RecursionError):
            raise
        except Exception as error:  # whatever a damaged page makes of the library
            fault, n_faults, text = fault or error, n_faults + 1, ""
        n_chars += len(text)
        if n_chars > limits.max_chars:
            raise too_long(source, limits)
        yield text
    if fault and n_faults == n_pages:
        raise fault


def _joined(pages: list[str]) -> Iterator[str]:
    """The pages with words put together that were divided at the ends of lines. A hyphen stays
    where the same word is written with one inside a line elsewhere."""
    compounds = {match[0].casefold() for page in pages for match in _COMPOUND.finditer(page)}

    def whole(match: re.Match[str]) -> str:
        is_compound = f"{match[1]}-{match[2]}".casefold() in compounds or match[2][0].isupper()
        return f"{match[1]}{'-' if is_compound else ''}{match[2]}\n"

    for page in pages:
        lines = _LEADERS.sub(" …", _HYPHENATED.sub(whole, page)).replace("\xad", "")
        yield "\n".join(line.strip() for line in lines.split("\n")).strip()


def _title(reader: PdfReader) -> str:
    title = None
    with suppress(Exception):  # damaged metadata are no reason to refuse the pages
        title = reader.metadata.title if reader.metadata else None
    line = line_of(str(title or "").translate(_LIGATURES))
    return "" if _NO_TITLE.fullmatch(line) else line
