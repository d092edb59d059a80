"""Wikitext → plain text in sections: no templates, tables, references, files or markup.

Only the processes that read dumps import this file: it needs mwparserfromhell.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import mwparserfromhell
from mwparserfromhell import nodes

from .documents import Section
from .wikipedia_templates import Arguments, render, stands_for_words

# whole sections that hold no sentences: lists of books, links and sources
LEFT_OUT = frozenset({
    "references", "notes", "external links", "further reading", "see also", "citations",
    "footnotes", "sources", "works cited", "notes and references", "references and notes",
    "gallery",
})  # fmt: skip
_DISAMBIGUATION = re.compile(
    r"\{\{\s*(disambiguation|disambig|dab|disamb|hndis|geodis|human name disambiguation|"
    r"place name disambiguation)\s*[|}]",
    re.IGNORECASE,
)
_REDIRECT = re.compile(r"\s*#redirect\b", re.IGNORECASE)
# mwparserfromhell takes a tag with a line break in it for text
_OPENED_REF = re.compile(r"<ref\b[^<>]*>", re.IGNORECASE)
_DROPPED_TAGS = frozenset({
    "ref", "references", "gallery", "score", "timeline", "table", "syntaxhighlight",
    "source", "imagemap", "hiero", "graph", "mapframe", "maplink", "templatestyles", "section",
    "inputbox", "includeonly", "categorytree", "templatedata", "hr", "style", "script", "indicator",
})  # fmt: skip
_LINE = "\ue000"  # a private character: here a line begins that does not flow into the one before
_RAISED = str.maketrans("0123456789+-−n", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻ⁿ")
_FORMULA = 40  # characters
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[a-z-]+)?|simple")
_CLEANED = [
    (re.compile(pattern), with_)
    for pattern, with_ in (
        (r"__[A-Z]{3,}__", ""),
        (r"</?ref\b[^<>]*>", ""),
        (r"'{2,}", ""),
        (r"\{\{|\}\}|\[\[|\]\]", ""),
        (r"[ \t\xa0\u2000-\u200b\u202f\u3000]+", " "),
        # what templates and notes leave in brackets: "(; born 1950)", "(  )"
        (r"\(\s*(?:[,;:]\s*)+", "("),
        (r"\s*(?:[,;:]\s*)+\)", ")"),
        (r" ?\(\s*\)", ""),
        (r" ?\[\s*\]", ""),
        (r" +([,;)])", r"\1"),
        (r" +([.:!?](?:\s|$))", r"\1"),
        (r"\( +", "("),
        (r",(?: ?,)+", ","),
    )
]
_TABLE_LINE = re.compile(r"\s*(\{\||\|\}|\|[-+}]|\||!)")


def is_article(wikitext: str) -> bool:
    """Whether the page says something itself: no redirect, no list of pages of the same name."""
    return not (_REDIRECT.match(wikitext) or _DISAMBIGUATION.search(wikitext))


def plain_text(
    wikitext: str, silent: Iterable[str] = ("file", "image", "category")
) -> tuple[str, tuple[Section, ...]]:
    """The article's text, and its sections with their paths of headings, which the text leaves out.

    silent  namespaces, in lower case, whose links show no words
    """
    walker = _Walker(frozenset(silent))
    wikitext = _OPENED_REF.sub(lambda tag: " ".join(tag[0].split()), wikitext)
    code = mwparserfromhell.parse(wikitext, skip_style_tags=True)
    text: list[str] = []
    sections: list[Section] = []
    length = 0
    for headings, written in walker.parts(code.nodes):
        body = _tidied(written)
        if not body or any(heading.casefold() in LEFT_OUT for heading in headings):
            continue
        if text:
            text.append("\n\n")
            length += 2
        text.append(body)
        sections.append(Section(length, length + len(body), headings))
        length += len(body)
    return "".join(text), tuple(sections)


def _tidied(written: str) -> str:
    """Paragraphs with one empty line between them, each one line; items of lists are lines."""
    paragraphs = []
    for block in re.split(r"\n[ \t]*\n", written):
        lines: list[str] = []
        for line in block.split("\n"):
            is_new = line.startswith(_LINE) or not lines
            line = line.replace(_LINE, "")
            if _TABLE_LINE.match(line):  # of a table that was never closed
                continue
            for pattern, with_ in _CLEANED:
                line = pattern.sub(with_, line)
            if not (line := line.strip()) or not any(map(str.isalnum, line)):
                continue
            if is_new:
                lines.append(line)
            else:
                lines[-1] += " " + line
        if lines:
            paragraphs.append("\n".join(lines))
    return "\n\n".join(paragraphs)


class _Walker:
    """From the tree of a page to text; `silent` are the namespaces whose links show no words."""

    def __init__(self, silent: frozenset[str]) -> None:
        self._silent = silent

    def parts(self, page: Iterable[Any]) -> Iterable[tuple[tuple[str, ...], str]]:
        """(path of headings, text) for the lead and each section."""
        path: list[tuple[int, str]] = []
        written: list[str] = []
        for node in page:
            if not isinstance(node, nodes.Heading):
                written.append(self.text(node))
                continue
            yield tuple(heading for _, heading in path), "".join(written)
            written = []
            title = _tidied(self.all(node.title))
            path = [(level, heading) for level, heading in path if level < node.level]
            path.append((node.level, title.replace("\n", " ")))
        yield tuple(heading for _, heading in path), "".join(written)

    def all(self, code: Any) -> str:
        """The text of a piece of wikitext, which may be None."""
        return "".join(map(self.text, code.nodes)) if code is not None else ""

    def text(self, node: Any) -> str:
        """What a reader sees of a node."""
        match node:
            case nodes.Text():
                return str(node.value)
            case nodes.Wikilink():
                return self._link(node)
            case nodes.Tag():
                return self._tag(node)
            case nodes.Template():
                return self._template(node)
            case nodes.ExternalLink():
                return self.all(node.title) if node.brackets else ""
            case nodes.HTMLEntity():
                return _entity(node)
            case nodes.Heading():
                return f"\n\n{self.all(node.title)}\n\n"
        return ""  # comments, arguments of templates

    def _link(self, node: Any) -> str:
        title = str(node.title).strip()
        namespace = title.partition(":")[0].strip().casefold() if ":" in title else ""
        if namespace in self._silent:
            return ""
        if node.text is not None:
            return self.all(node.text)
        if namespace and _LANGUAGE.fullmatch(namespace):  # the same article elsewhere
            return ""
        return self.all(node.title).lstrip(":").partition("#")[0] or title.lstrip("#")

    def _tag(self, node: Any) -> str:
        name = str(node.tag).strip().casefold()
        if node.wiki_markup in ("*", "#", ":", ";"):
            return _LINE
        if name in _DROPPED_TAGS:
            return "\n\n" if name == "table" else ""
        if name in ("br", "p"):
            return f"\n{_LINE}" + self.all(node.contents)
        contents = self.all(node.contents)
        if name == "math":  # TeX only where it reads like text
            return contents if "\\" not in contents and len(contents) <= _FORMULA else ""
        if name == "sup" and contents:
            raised = contents.translate(_RAISED)
            return raised if not re.search(r"[^⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]", raised) else f"^{contents}"
        return f"\n\n{contents}\n\n" if name in ("blockquote", "div", "poem", "li") else contents

    def _template(self, node: Any) -> str:
        name = str(node.name)
        if not stands_for_words(name):
            return ""
        positional, named = [], {}
        for parameter in node.params:
            value = self.all(parameter.value).strip()
            key = str(parameter.name).strip()
            if parameter.showkey and not key.isdecimal():
                named[key] = value
            else:
                positional.append(value)
        return render(name, Arguments(positional, named))


def _entity(node: Any) -> str:
    try:
        return str(node.normalize())
    except (ValueError, OverflowError):
        return ""


def documents(content: bytes, arguments: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What runs in the child (see data.isolation): one value for each page, in order.

    content    JSON, a list of wikitexts
    arguments  "silent": see `plain_text`
    """
    for wikitext in json.loads(content):
        text = ""
        sections: tuple[Section, ...] = ()
        if is_article(wikitext):
            text, sections = plain_text(wikitext, arguments["silent"])
        yield {"text": text, "sections": [[s.start, s.end, s.headings] for s in sections]}
