"""Plain text: the file's own text, one section."""

from __future__ import annotations

from collections.abc import Iterator

from data.documents import Document, Section

from . import Limits, Source
from ._bytes import text_of

SUFFIXES = {
    **dict.fromkeys((".txt", ".text", ".log", ".adoc", ".asciidoc", ".org"), "text/plain"),
    **dict.fromkeys(("readme", "license", "licence", "copying", "changelog"), "text/plain"),
    **dict.fromkeys(("authors", "notice", "news", "todo", "install"), "text/plain"),
    ".tex": "text/x-tex",
    ".srt": "application/x-subrip",
    ".vtt": "text/vtt",
}
ISOLATED = False


def parse(content: bytes, source: Source, limits: Limits) -> Iterator[Document]:
    """One document, titled by the file's name."""
    text = text_of(content, source, limits)
    if not text.strip():
        raise source.error("there is no text in it")
    metadata = {"mime": source.mime, "lines": "yes"}
    yield Document(source.uri, source.stem, text, (Section(0, len(text)),), metadata)
