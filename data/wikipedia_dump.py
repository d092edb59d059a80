"""A MediaWiki dump (`enwiki-…-pages-articles.xml.bz2`, .gz or .xml), read page by page.

The file is never whole in memory. Where a reading stopped it can go on: every page knows its
`position`, "OFFSET:N": N pages lie between byte OFFSET of the file, where a compressed stream of
whole pages begins, and the page. A dump of many streams ("multistream", a hundred pages each) is
entered there at once; one of a single stream is unpacked again from its beginning (offset 0), and
its first N pages are passed over.
"""

from __future__ import annotations

import bz2
import gzip
import re
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from xml.etree.ElementTree import ParseError

from loguru import logger

from .documents import DocumentError

OnBytes = Callable[[int, int], None]  # (bytes of the file that were read, bytes in all)

_ARTICLES = 0  # the number of their namespace
_SILENT = {"6", "14"}  # namespaces of files and categories
_PACKED_BLOCK = 1 << 18
_BLOCK = 1 << 20
_MAX_PAGE_BYTES = 64 << 20  # Wikipedia itself allows 2 MiB of wikitext
_PAGE = b"<page>"
_POSITION = re.compile(r"(\d{1,15}):(\d{1,15})", re.ASCII)


class DumpError(DocumentError):
    """A dump cannot be read (further); one line. `position` is where a next reading can go on."""

    def __init__(self, message: str, position: str = "") -> None:
        super().__init__(message)
        self.position = position


@dataclass(frozen=True, slots=True)
class Site:
    """What the dump says of its wiki.

    url     the beginning of an article's address, with the slash at its end
    silent  names of namespaces, in lower case, whose links show no words: files and categories
    """

    url: str
    silent: tuple[str, ...]


_SITE = Site("https://en.wikipedia.org/wiki/", ("category", "file", "image"))  # unless it says so


@dataclass(frozen=True, slots=True)
class Page:
    """An article as it stands in the dump: no redirect, no other namespace."""

    title: str
    revision: str
    wikitext: str
    position: str
    site: Site


def pages(path: Path, position: str = "", on_bytes: OnBytes | None = None) -> Iterator[Page]:
    """The articles of the dump in its order, from `position` on (that page included).

    DumpError when there is no such file, when it is no dump, and, after the pages before the
    damage, when it is cut short or damaged.
    """
    offset, n_passed_over = _parsed(position)
    try:
        file = path.open("rb")
    except OSError as error:
        raise DumpError(f"{path} cannot be read: {error.strerror}") from error
    with closing(_Text(file, offset, on_bytes)) as text:
        number, site = 0, _SITE
        try:
            for element in _elements(text, path):
                if element.tag == "siteinfo":
                    site = _site(element)
                elif element.tag == "page":
                    if number >= n_passed_over and (article := _article(element)):
                        yield Page(*article, text.position_of(number), site)
                    number += 1
                    text.page_ends()
        except (EOFError, OSError, zlib.error, ParseError, ValueError, TypeError) as error:
            if isinstance(error, DumpError):
                raise
            here = text.position_of(number)
            raise DumpError(_broken(path, number, here, error), here) from error


def _parsed(position: str) -> tuple[int, int]:
    if not position:
        return 0, 0
    if not (match := _POSITION.fullmatch(position)):
        raise DumpError(f"{position!r} is no position in a dump; they look like 0:1200")
    return int(match[1]), int(match[2])


def _elements(text: _Text, path: Path) -> Iterator[Any]:
    """What stands in the document's root, as mwxml's elements."""
    try:
        from mwxml.element_iterator import ElementIterator
    except ModuleNotFoundError as error:
        raise DumpError(
            "dumps of Wikipedia need the package mwxml; "
            "python -m pip install 'sparsechat[wikipedia]' installs it"
        ) from error
    root = ElementIterator.from_file(text)
    if root.tag != "mediawiki":
        raise DumpError(f"{path} is no dump of MediaWiki: it begins with <{root.tag}>")
    for element in root:
        yield element
        root.element.clear()  # or an empty element would be left for every page


def _site(element: Any) -> Site:
    from mwxml import SiteInfo

    info = SiteInfo.from_element(element)
    silent = {n.name.casefold() for n in info.namespaces or () if str(n.id) in _SILENT}
    url = info.base.rpartition("/")[0] + "/" if info.base else _SITE.url
    return Site(url, tuple(sorted({*silent, *_SITE.silent})))


def _article(element: Any) -> tuple[str, str, str] | None:
    """(title, revision id, wikitext) of the newest revision; None when the page is no article."""
    from mwxml import Page as AnyPage
    from mwxml.errors import MalformedXML

    try:
        page = AnyPage.from_element(element, {})
        if page.namespace != _ARTICLES or page.redirect:
            return None
        newest = None
        for newest in page:  # noqa: B007  a dump of histories has more than one
            pass
    except (MalformedXML, AttributeError) as error:  # AttributeError: it has no title
        logger.warning("left out a page that is not as pages are: {}", error)
        return None
    if newest is None or not newest.text or newest.model not in (None, "wikitext"):
        return None
    return str(page.title), str(newest.id), str(newest.text)


def _broken(path: Path, number: int, position: str, error: Exception) -> str:
    reason = " ".join(str(error).split())[:150] or type(error).__name__
    if not number and position == "0:0":
        return f"{path} is no dump of MediaWiki, or damaged at its beginning ({reason})"
    return (
        f"{path} is cut short or damaged at {position} ({reason}); what comes before was read. "
        "Fetch the file again and run the same command"
    )


class _Text:
    """The unpacked dump as a file for the XML parser; knows in which stream a page stands."""

    def __init__(self, file: IO[bytes], offset: int, on_bytes: OnBytes | None) -> None:
        self._file, self._on_bytes = file, on_bytes
        self._size = file.seek(0, 2)
        self._pieces = self._unpacked(offset)
        # (byte at which a stream of whole pages begins, pages of this reading before it)
        self._streams = deque([(offset, 0)])
        self._n_pages = self._since_page = 0
        self._end = b""  # of the last piece: a tag may lie across two

    def read(self, size: int = -1) -> bytes:
        """The next piece, of any size; b"" at the end. EOFError when a stream is cut short."""
        for offset, text in self._pieces:
            if offset != self._streams[-1][0] and text.lstrip()[: len(_PAGE)] == _PAGE:
                self._streams.append((offset, self._n_pages))
            self._n_pages += (self._end + text).count(_PAGE)
            self._end = text[1 - len(_PAGE) :]
            self._since_page += len(text)
            if self._since_page > _MAX_PAGE_BYTES:
                raise EOFError(f"a page is larger than {_MAX_PAGE_BYTES >> 20} MiB")
            if self._on_bytes:
                self._on_bytes(self._file.tell(), self._size)
            return text
        return b""

    def page_ends(self) -> None:
        """A page has been taken."""
        self._since_page = 0

    def position_of(self, number: int) -> str:
        """Of page `number` of this reading, from 0; asked in rising order."""
        while len(self._streams) > 1 and self._streams[1][1] <= number:
            self._streams.popleft()
        offset, before = self._streams[0]
        return f"{offset}:{number - before}"

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _unpacked(self, offset: int) -> Iterator[tuple[int, bytes]]:
        """(byte at which its stream begins, text), piece by piece and never empty."""
        self._file.seek(0)
        magic = self._file.read(3)
        self._file.seek(0)
        if magic != b"BZh":
            if offset:
                raise ValueError("only .bz2 files can be entered in their middle")
            is_gzip = magic[:2] == b"\x1f\x8b"
            plain: Any = gzip.GzipFile(fileobj=self._file) if is_gzip else self._file
            while text := plain.read(_BLOCK):
                yield 0, text
            return
        if offset:  # the parser needs the beginning of the document
            head = b""
            for start, text in self._streams_from(0):
                if start or _PAGE in head:
                    break
                head += text
            yield offset, head.partition(_PAGE)[0]
        yield from self._streams_from(offset)

    def _streams_from(self, offset: int) -> Iterator[tuple[int, bytes]]:
        """The same, of the bz2 streams that stand one behind another from `offset` on."""
        while True:
            self._file.seek(offset)
            unpacker = bz2.BZ2Decompressor()
            packed = self._file.read(_PACKED_BLOCK)
            if not packed:
                return
            while not unpacker.eof:
                if text := unpacker.decompress(packed, _BLOCK):
                    yield offset, text
                if unpacker.needs_input and not unpacker.eof:
                    packed = self._file.read(_PACKED_BLOCK)
                    if not packed:
                        raise EOFError("the file ends in the middle")
                else:
                    packed = b""
            offset = self._file.tell() - len(unpacker.unused_data)
