"""Markdown: the file's own text, in sections by its headings (# and underlined)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from data.documents import Document

from . import Limits, Source
from ._bytes import text_of
from ._outline import Heading, line_of, outline

SUFFIXES = dict.fromkeys((".md", ".markdown", ".mdown", ".mkd", ".mdx", ".qmd"), "text/markdown")
SUFFIXES[".rst"] = "text/x-rst"
ISOLATED = False

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_HASHES = re.compile(r" {0,3}(#{1,6})(?:[ \t]++|$)")
_MARKUP = re.compile(r"!?\[([^\[\]]*+)\]\([^()\s]*+[^()]*+\)|[*`]")
_TITLE = re.compile(r"title[ \t]*:[ \t]*([^\n]*)")
# the line under a heading; in Markdown "=" and "-" only, in reStructuredText more
_UNDERLINES = {"text/markdown": "=-", "text/x-rst": "=-~^\"'`#*+:._"}
# what cannot be the text of an underlined heading: a list, a quotation, a table, another heading
_NO_HEADING = re.compile(r" {0,3}(?:[-*+>|#]|\d+[.)][ \t])|    |\t|\.\. ")


def parse(content: bytes, source: Source, limits: Limits) -> Iterator[Document]:
    """One document, titled by its front matter, its first heading or the file's name."""
    text = text_of(content, source, limits)
    if not text.strip():
        raise source.error("there is no text in it")
    begin, title = _front_matter(text)
    headings = list(_headings(text, begin, _UNDERLINES.get(source.mime, "=-")))
    title = title or (headings[0].title if headings else "") or source.stem
    metadata = {"mime": source.mime, "lines": "yes"}
    yield Document(source.uri, title, text, outline(text, headings, title), metadata)


def _front_matter(text: str) -> tuple[int, str]:
    """Where the text begins after a block of `---` lines, and the title in that block."""
    if not text.startswith("---\n"):
        return 0, ""
    end = text.find("\n---\n", 3)
    if end < 0:
        return 0, ""
    lines = text[4 : end + 1].split("\n")
    found = next((match for line in lines if (match := _TITLE.match(line))), None)
    return end + 5, line_of(found[1].strip(" \t\"'")) if found else ""


def _headings(text: str, begin: int, underlines: str) -> Iterator[Heading]:
    """The headings in text[begin:], in order."""
    is_markdown = underlines == _UNDERLINES["text/markdown"]
    lines = _Underlined(underlines, {"=": 1, "-": 2} if is_markdown else {})
    fence = ""
    start = begin
    for line in text[begin:].split("\n"):
        end = start + len(line)
        mark = _FENCE.match(line) if is_markdown else None
        if fence:
            if mark and mark[1].startswith(fence) and not line[mark.end() :].strip():
                fence = ""
        elif mark:
            fence = mark[1]
            lines.forget()
        elif is_markdown and (hashes := _HASHES.match(line)):
            title = _plain(line[hashes.end() :].rstrip().rstrip("#"))
            if title:
                yield Heading(start, end, len(hashes[1]), title)
            lines.forget()
        elif heading := lines.follow(line, start):
            yield heading
        start = end + 1


class _Underlined:
    """Headings that are a line of words above a line of one repeated mark (and, in
    reStructuredText, maybe below another): one line of words after a blank one."""

    def __init__(self, marks: str, levels: dict[str, int]) -> None:
        self._marks, self._levels = marks, levels
        self._is_after_blank = True
        self._words: tuple[int, str] | None = None
        self._above: int | None = None  # where the mark's line above the words begins

    def forget(self) -> None:
        """The line was something else."""
        self._is_after_blank, self._words, self._above = True, None, None

    def follow(self, line: str, start: int) -> Heading | None:
        """The heading that ends with this line, which begins at `start`."""
        rule = line.rstrip()
        is_rule = bool(rule) and rule[0] in self._marks and not rule.strip(rule[0])
        heading = None
        if is_rule and self._words and self._is_long_enough(rule):
            style = rule[0] if self._above is None else rule[0] * 2
            level = self._levels.setdefault(style, len(self._levels) + 1)
            begin = self._words[0] if self._above is None else self._above
            heading = Heading(begin, start + len(line), min(level, 6), _plain(self._words[1]))
        words = None
        if rule and not is_rule and self._is_after_blank and not _NO_HEADING.match(line):
            words = (start, line)
        if is_rule:
            # over and under a heading is reStructuredText; in Markdown it is a line of its own
            self._above = start if len(self._marks) > 2 and not heading else None
        elif not words:
            self._above = None
        self._words, self._is_after_blank = words, is_rule or not rule
        return heading

    def _is_long_enough(self, rule: str) -> bool:
        assert self._words
        return len(self._marks) == 2 or len(rule) >= min(len(self._words[1].rstrip()), 4)


def _plain(title: str) -> str:
    """A heading's words without links and emphasis."""
    return line_of(_MARKUP.sub(lambda match: match[1] or "", title))
