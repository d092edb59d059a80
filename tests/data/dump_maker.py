"""Small dumps as MediaWiki writes them."""

from __future__ import annotations

import bz2
from collections.abc import Iterable
from xml.sax.saxutils import escape

HEAD = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" xml:lang="en">
  <siteinfo>
    <sitename>Wikipedia</sitename>
    <dbname>enwiki</dbname>
    <base>https://en.wikipedia.org/wiki/Main_Page</base>
    <generator>MediaWiki 1.43.0-wmf.1</generator>
    <case>first-letter</case>
    <namespaces>
      <namespace key="0" case="first-letter" />
      <namespace key="1" case="first-letter">Talk</namespace>
      <namespace key="6" case="first-letter">Bild</namespace>
      <namespace key="14" case="first-letter">Kategorie</namespace>
    </namespaces>
  </siteinfo>
"""
FOOT = "</mediawiki>\n"


def page(
    title: str, wikitext: str, *, revision: int = 7, namespace: int = 0, redirect: str = ""
) -> str:
    """A <page> as it stands in a dump of articles."""
    target = f'\n    <redirect title="{redirect}" />' if redirect else ""
    return f"""  <page>
    <title>{escape(title)}</title>
    <ns>{namespace}</ns>
    <id>{revision + 1000}</id>{target}
    <revision>
      <id>{revision}</id>
      <parentid>{revision - 1}</parentid>
      <timestamp>2026-08-01T10:00:00Z</timestamp>
      <contributor>
        <username>Someone</username>
        <id>5</id>
      </contributor>
      <comment>/* &lt;page&gt; */ a comment</comment>
      <origin>{revision}</origin>
      <model>wikitext</model>
      <format>text/x-wiki</format>
      <text bytes="{len(wikitext)}" sha1="0" xml:space="preserve">{escape(wikitext)}</text>
      <sha1>0</sha1>
    </revision>
  </page>
"""


def article(number: int) -> str:
    """A page of a few sentences, each with another title and text."""
    text = f"'''Place {number}''' is a [[village]] of {number} people.\n\n== History ==\nIt is old."
    return page(f"Place {number}", text, revision=number)


def single_stream(pages: Iterable[str]) -> bytes:
    """The dump as one bz2 stream."""
    return bz2.compress((HEAD + "".join(pages) + FOOT).encode())


def multistream(groups: Iterable[Iterable[str]]) -> bytes:
    """The head, each group of pages and the end as bz2 streams one behind another."""
    parts = [HEAD, *("".join(group) for group in groups), FOOT]
    return b"".join(bz2.compress(part.encode()) for part in parts)
