"""HTML: the text that a reader of the page sees, in sections by h1 to h6."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from data.documents import Document

from . import Limits, Source
from ._bytes import text_of
from ._outline import Builder

if TYPE_CHECKING:
    from selectolax.lexbor import LexborHTMLParser, LexborNode

SUFFIXES = {
    ".html": "text/html",
    ".htm": "text/html",
    ".xhtml": "application/xhtml+xml",
    ".xht": "application/xhtml+xml",
}
ISOLATED = True

_HEAD = 4096
_DECLARED = re.compile(
    rb"<(?:meta\s[^>]{0,300}?charset\s{0,9}=|\?xml\s[^>]{0,200}?encoding\s{0,9}=)"
    rb"\s{0,9}[\"']?([\w:.-]{2,40})",
    re.IGNORECASE,
)
# none of these is read: programs, styles, what only controls or leads elsewhere
_DROPPED = frozenset(
    "head script style template noscript svg math iframe object embed applet canvas audio video "
    "nav footer button select textarea datalist dialog -comment".split()
)
_HIDDEN = (
    "[hidden], [style*='display:none' i], [style*='display: none' i], [role=navigation], "
    "[role=search], [role=contentinfo], [role=complementary]"
)
# a row with one of these lays out a page; the cells of another are put in one line
_LAYOUT = "table, h1, h2, h3, h4, h5, h6, pre, ul, ol, p + p, div + div"
_BLOCKS = frozenset(
    "p div section article main header footer aside address blockquote center figure figcaption "
    "ul ol dl table caption form fieldset details summary hr pre body html hgroup search "
    "h1 h2 h3 h4 h5 h6".split()
)
_LINES = frozenset("li dt dd tr option legend".split())
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
# each start tag of these makes the parser look through all open ones: deep nesting is quadratic
_NESTING = re.compile(
    r"<(/?)(?:div|section|article|main|ul|ol|dl|blockquote|center|table|form)\b", re.I
)
_DEEPEST = 20_000
_SITE = re.compile(r"https?://\S+\Z", re.IGNORECASE)


def parse(content: bytes, source: Source, limits: Limits) -> Iterator[Document]:
    """One document, titled by <title>, its first heading or the file's name."""
    from selectolax.lexbor import LexborHTMLParser

    declared = _DECLARED.search(content[:_HEAD])
    text = text_of(content, source, limits, declared[1].decode("ascii") if declared else None)
    _refuse_deep(text, source)
    tree = LexborHTMLParser(text)
    for node in tree.css(_HIDDEN):
        node.decompose()
    title = tree.css_first("title")
    page = _Page(Builder(source, limits))
    if tree.root is not None:
        page.read(tree.root)
    address = _address(tree)
    yield page.builder.document(title.text() if title else "", {"url": address} if address else {})


def _refuse_deep(text: str, source: Source) -> None:
    depth = 0
    for tag in _NESTING.finditer(text):
        depth = max(0, depth - 1) if tag[1] else depth + 1
        if depth > _DEEPEST:
            raise source.error(f"its tags are nested more than {_DEEPEST:,} deep")


def _address(tree: LexborHTMLParser) -> str:
    """Where the page says that it comes from; only for citations, nothing is fetched."""
    for selector, name in (("link[rel=canonical]", "href"), ("meta[property='og:url']", "content")):
        node = tree.css_first(selector)
        value = (node.attributes.get(name) or "").strip() if node else ""
        if _SITE.match(value) and len(value) < 2000:
            return value
    return ""


class _Page:
    """The walk over a page: inline text is collected until a block begins or ends."""

    def __init__(self, builder: Builder) -> None:
        self.builder = builder
        self._inline: list[str] = []
        self._gap = 2
        self._prefix = ""
        self._n_pre = 0
        self._heading = 0  # the level of the heading that we are in
        self._is_row = False  # in a row whose cells are put in one line

    def read(self, root: LexborNode) -> None:
        """All of `root`, without recursion: pages may be nested deeper than Python can call."""
        node, depth = root, 0
        while True:
            child = node.child if self._enter(node) else None
            if child is not None:
                node, depth = child, depth + 1
                continue
            while True:
                self._leave(node)
                if not depth:
                    self._flush()
                    return
                following = node.next
                if following is not None:
                    node = following
                    break
                parent = node.parent
                assert parent is not None
                node, depth = parent, depth - 1

    def _enter(self, node: LexborNode) -> bool:
        """Whether to read what is in the node."""
        tag = node.tag or ""
        if tag == "-text":
            text = node.text_content or ""
            self._inline.append("" if text == "¶" else text)  # a link to the heading itself
        elif tag in _DROPPED:
            return False
        elif tag == "br":
            self._inline.append("\n" if self._n_pre else "\0")
        elif tag in _BLOCKS or tag in _LINES:
            self._break(tag)
            self._n_pre += tag == "pre"
            if tag == "li":
                self._prefix = "- "
            elif tag == "tr":
                self._is_row = node.css_first(_LAYOUT) is None
            if not self._heading:
                self._heading = _HEADINGS.get(tag, 0)
        elif tag in ("td", "th") and self._is_row and any(map(str.strip, self._inline)):
            self._inline.append(" | ")
        return True

    def _leave(self, node: LexborNode) -> None:
        tag = node.tag or ""
        if tag in _BLOCKS or tag in _LINES:
            self._is_row = self._is_row and tag != "tr"
            self._break(tag)
            self._n_pre -= tag == "pre"
            if tag in _HEADINGS and self._heading:
                title = "".join(self._inline).replace("\0", " ")
                self.builder.heading(self._heading, title.replace("\xad", ""))
                self._inline, self._heading, self._gap, self._prefix = [], 0, 2, ""

    def _break(self, tag: str) -> None:
        if self._heading or self._is_row:
            self._inline.append(" ")
            return
        self._flush()
        self._gap = max(self._gap, 2 if tag in _BLOCKS else 1)

    def _flush(self) -> None:
        """The collected text becomes a block, with white space as a browser shows it."""
        text = "".join(self._inline).replace("\xad", "")
        self._inline = []
        if not self._n_pre:
            text = "\n".join(" ".join(line.split()) for line in text.split("\0"))
        if text.strip():
            self.builder.add(self._prefix + text.strip("\n"), self._gap)
            self._gap, self._prefix = 0, ""
