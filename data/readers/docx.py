"""Word documents: paragraphs, lists and tables, in sections by heading styles."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from data.documents import Document

from . import Limits, Source
from ._outline import Builder

if TYPE_CHECKING:
    from docx.document import Document as WordDocument

SUFFIXES = dict.fromkeys(
    (".docx", ".docm"), "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
)
ISOLATED = True

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_HEADING = re.compile(r"heading (\d)$", re.IGNORECASE)
_DEEPEST_BASE = 20
# small files are let pass whatever their ratio: templates unpack to a hundred times their size
_ALWAYS_FINE = 20_000_000
_MOST_PARTS = 20_000
_BLANKS = {f"{_W}tab": "\t", f"{_W}br": "\n", f"{_W}cr": "\n", f"{_W}noBreakHyphen": "-"}
# struck out, moved away, and the second copy of a text box
_DROPPED = {f"{_W}del", f"{_W}moveFrom", _FALLBACK}


def parse(content: bytes, source: Source, limits: Limits) -> Iterator[Document]:
    """One document, titled by its metadata, its first heading or the file's name."""
    import docx

    _check_parts(content, source, limits)
    document = docx.Document(io.BytesIO(content))
    builder = Builder(source, limits)
    levels = _levels(document)
    for block in _blocks(document.element.body):
        if block.tag == f"{_W}tbl":
            for row in block.iter(f"{_W}tr"):
                cells = [" ".join(_text(cell).split()) for cell in row.iter(f"{_W}tc")]
                builder.add(" | ".join(filter(None, cells)), 1)
            continue
        style = block.pPr.pStyle if block.pPr is not None else None
        level = levels.get(style.val if style is not None else "", 0)
        is_item = block.pPr is not None and block.pPr.numPr is not None
        if level:
            builder.heading(level, _text(block))
        elif text := _text(block).strip():
            builder.add(f"- {text}" if is_item else text, 1 if is_item else 2)
    title = ""
    with suppress(Exception):  # damaged metadata are no reason to refuse the text
        title = document.core_properties.title or ""
    yield builder.document(title, {})


def _check_parts(content: bytes, source: Source, limits: Limits) -> None:
    """Refuse what unpacks to far more than it is, and XML that defines entities.

    The sizes in the table of contents bind: zipfile reads no further.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            parts = archive.infolist()
            size = sum(part.file_size for part in parts)
            if len(parts) > _MOST_PARTS or size > max(
                _ALWAYS_FINE, limits.max_expansion * len(content)
            ):
                raise source.error(
                    f"its {len(content):,} bytes unpack to {size:,}, more than "
                    f"{limits.max_expansion} times as many; it may be a zip bomb"
                )
            if any(part.flag_bits & 1 for part in parts):
                raise source.error("it is protected by a password; save a copy without one")
            for part in parts:
                if part.filename.casefold().endswith((".xml", ".rels")):
                    # without zero bytes, so that UTF-16 hides nothing
                    head = archive.read(part).replace(b"\0", b"")
                    if b"<!DOCTYPE" in head or b"<!ENTITY" in head:
                        raise source.error("its XML defines entities, which no Word file needs")
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, NotImplementedError) as error:
        raise source.error(f"it is no whole docx ({' '.join(str(error).split())})") from error


def _levels(document: WordDocument) -> dict[str, int]:
    """Style id → level of heading (1 to 9), for the styles that are headings or based on one."""
    found = {}
    for style in document.styles:
        base: Any = style
        for _ in range(_DEEPEST_BASE):
            name = (base.name or "") if base is not None else ""
            if match := _HEADING.match(name):
                found[style.style_id] = int(match[1])
                break
            if name == "Title":
                found[style.style_id] = 1
                break
            base = getattr(base, "base_style", None)
    return found


def _blocks(body: Any) -> Iterator[Any]:
    """Paragraphs and tables in order, those inside of content controls, too."""
    waiting = [iter(body)]
    while waiting:
        block = next(waiting[-1], None)
        if block is None:
            waiting.pop()
        elif block.tag in (f"{_W}p", f"{_W}tbl"):
            yield block
        elif block.tag in (f"{_W}sdt", f"{_W}sdtContent", f"{_W}ins", f"{_W}customXml"):
            waiting.append(iter(block))


def _text(element: Any) -> str:
    """All text below an element, without what is deleted."""
    parts: list[str] = []
    waiting = [iter(element)]
    while waiting:
        child = next(waiting[-1], None)
        if child is None:
            waiting.pop()
        elif child.tag == f"{_W}t":
            parts.append(child.text or "")
        elif child.tag in _BLANKS:
            parts.append(_BLANKS[child.tag])
        elif child.tag not in _DROPPED:
            if child.tag == f"{_W}p" and parts:
                parts.append("\n")
            waiting.append(iter(child))
    return "".join(parts)
