"""What a reader makes of a file or a row: text, its sections and where it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


class DocumentError(ValueError):
    """A file cannot be read as documents; one line: the file, the reason, the way out."""


@dataclass(frozen=True, slots=True)
class Section:
    """text[start:end] of a document (in characters): a stretch that no chunk leaves.

    headings  the path of headings that it stands under, outermost first
    page      from 1; None where the kind of file has no pages
    """

    start: int
    end: int
    headings: tuple[str, ...] = ()
    page: int | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """One text with its sections, ready to be cut into chunks.

    uri       unique in a knowledge base and stable: the absolute path of the file (posix),
              `path#row` for rows (from 1) of jsonl, json and csv, an article's URL for Wikipedia
    sections  in order, not overlapping, together all of the text but white space; () = one section
    metadata  strings only: "mime"; "url", "revision"; "lines": "yes" where the text is the file's
              own (line ends made \\n), so that line numbers mean something; "unit": "lines" where
              a chunk is made of lines rather than sentences (source code)
    """

    uri: str
    title: str
    text: str
    sections: tuple[Section, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        end = 0
        for section in self.sections:
            if not end <= section.start <= section.end <= len(self.text):
                raise ValueError(
                    f"{self.uri}: the section {section.start}:{section.end} overlaps another or "
                    f"leaves the text of {len(self.text):,} characters; sections stand in order"
                )
            end = section.end
