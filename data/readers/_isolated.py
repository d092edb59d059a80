"""A reader in a child process: both ends of the conversation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from importlib import import_module
from typing import Any

from data import isolation
from data.documents import Document, DocumentError, Section

from . import KINDS, Limits, Source

_SECTION = len(fields(Section))


def parse(kind: str, content: bytes, source: Source, limits: Limits) -> Iterator[Document]:
    """data.readers.<kind>.parse in a child. DocumentError for whatever goes wrong there."""
    arguments = {"kind": kind, "source": asdict(source), "limits": asdict(limits)}
    ceiling = isolation.Ceiling(
        max_seconds=limits.max_seconds,
        max_memory_bytes=limits.max_memory_bytes,
        # letters of several bytes, escapes, and a section to every line
        max_answer_bytes=16 * limits.max_chars + (1 << 24),
    )
    try:
        for value in isolation.call(f"{__name__}:documents", content, arguments, ceiling):
            yield _unpacked(value, source, limits)
    except isolation.IsolationError as error:
        raise _explained(error, kind, source) from error
    except OSError as error:
        raise source.error(f"no process can be started to read it in ({error})") from error


def documents(content: bytes, arguments: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What runs in the child."""
    kind = arguments["kind"]
    assert kind in KINDS
    source, limits = Source(**arguments["source"]), Limits(**arguments["limits"])
    for document in import_module(f"{__package__}.{kind}").parse(content, source, limits):
        yield {
            "uri": document.uri,
            "title": document.title,
            "text": document.text,
            "sections": [[s.start, s.end, s.headings, s.page] for s in document.sections],
            "metadata": dict(document.metadata),
        }


def _unpacked(value: Any, source: Source, limits: Limits) -> Document:
    """A document of what the child sent; a child that was taken over cannot send another file's."""
    try:
        uri, title, text = (str(value[name]) for name in ("uri", "title", "text"))
        if uri.partition("#")[0] != source.uri.partition("#")[0] or len(text) > limits.max_chars:
            raise ValueError("it names another file")
        sections = tuple(
            Section(int(start), int(end), tuple(map(str, headings)), page and int(page))
            for start, end, headings, page in value["sections"]
        )
        metadata = {str(name): str(given) for name, given in value["metadata"].items()}
        return Document(uri, title, text, sections, metadata)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise source.error("its reader sent back nonsense; it may be an attack") from error


def _explained(error: isolation.IsolationError, kind: str, source: Source) -> DocumentError:
    if error.kind == "refused":
        return DocumentError(str(error))
    if error.kind == "lacking":
        return source.error(
            f"{kind} files need the package {error}; "
            "python -m pip install 'sparsechat[retrieval]' installs it"
        )
    if error.kind == "failed":
        return source.error(f"it is no readable {kind} ({str(error)[:200]})")
    if error.kind == "time":
        return source.error(f"{error}; split it, or raise the limit max_seconds")
    if error.kind == "memory":
        return source.error(f"{error}; split it, or raise the limit max_memory_bytes")
    return source.error(f"{error}; it is damaged, or not safe to open")
