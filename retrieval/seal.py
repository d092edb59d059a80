"""The seal of the database file: a CRC-32 of every page, so that any changed byte is found.

SQLite does not notice a flipped byte in a text or in the full-text index. In WAL mode, however,
the main file changes at checkpoints only, and all checkpoints are ours (retrieval/database.py):
after each, the sums of the pages that it wrote are renewed. At any moment a page therefore has
its sum, or the log still holds a newer copy of it (a checkpoint was cut short, or is running):

    checkpoint  ->  seal renewed  ->  only then may SQLite start the log anew

The log has checksums of its own. Reading 1 GB against its seal takes about half a second.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .main_file import MainFile
from .write_ahead_log import committed_pages

SUFFIX = ".seal"
# above this, a file that has size, time and inode of its seal is not read again at every start
LARGE = 1 << 30
_MAGIC = b"sparsechat seal 1\n"
_BLOCK_PAGES = 256


@dataclass(slots=True)
class Seal:
    """The sums of the pages of a file, its size, mtime_ns and inode when they were made, and a
    copy of its first page, without which SQLite reads nothing (retrieval/salvage.py)."""

    page_size: int
    stamp: tuple[int, int, int]
    sums: array[int]
    first: bytes = b""

    def renew(self, path: Path, file: MainFile, pages: Iterable[int]) -> None:
        """Take the sums of `pages` (from 0) and of all behind the known ones, and save."""
        pages, stamp = set(pages), file.stamp()
        if not pages and self.stamp == stamp:
            return
        n_pages, n_known = stamp[0] // self.page_size, len(self.sums)
        del self.sums[n_pages:]
        self.sums.extend([0] * (n_pages - len(self.sums)))
        for page in {p for p in pages if p < n_pages}.union(range(n_known, n_pages)):
            self.sums[page] = self.sum_of(file, page)
        self.first, self.stamp = file.read(self.page_size, 0), stamp
        self._save(path)

    def sum_of(self, file: MainFile, page: int) -> int:
        """The sum of a page as it is now."""
        return zlib.crc32(file.read(self.page_size, page * self.page_size))

    def is_broken(self, file: MainFile, page: int) -> bool:
        """Whether a page has no sum, or another one."""
        return page >= len(self.sums) or self.sum_of(file, page) != self.sums[page]

    def _save(self, path: Path) -> None:
        from data import files

        head = json.dumps({"page_size": self.page_size, "stamp": self.stamp}).encode() + b"\n"
        body = _MAGIC + head + self.first + self.sums.tobytes()
        target = _path(path)
        temporary = target.with_name(f"{target.name}.tmp")
        with temporary.open("wb") as written:
            written.write(body + struct.pack("<I", zlib.crc32(body)))
            written.flush()
            files.sync(written.fileno())
        os.replace(temporary, target)
        files.sync_folder(target.parent)


def make(path: Path, file: MainFile, page_size: int) -> Seal:
    """A seal of the file as it is, saved; only after the content was found whole."""
    seal = Seal(page_size, (0, 0, 0), array("I"))
    seal.renew(path, file, ())
    return seal


def load(path: Path) -> Seal | None:
    """The saved seal; None when there is none or it is damaged itself."""
    try:
        raw = _path(path).read_bytes()
        if not raw.startswith(_MAGIC) or zlib.crc32(raw[:-4]) != struct.unpack("<I", raw[-4:])[0]:
            return None
        head, _, body = raw[len(_MAGIC) : -4].partition(b"\n")
        values = json.loads(head)
        page_size = int(values["page_size"])
        sums = array("I", body[page_size:])
        return Seal(page_size, tuple(values["stamp"]), sums, body[:page_size])
    except (OSError, ValueError, KeyError, TypeError, struct.error):
        return None


def broken_pages(
    path: Path, file: MainFile, n_pages: int, always: bool = False
) -> list[int] | None:
    """The pages (from 0) of the first `n_pages` that are not what was written; None when there is
    no seal to compare with. Other processes may write meanwhile.

    always  read a large file too that has size, time and inode of its seal
    """
    seal = load(path)
    if seal is None:
        return None
    if not always and seal.stamp[0] > LARGE and seal.stamp == file.stamp():
        return []
    suspects = _changed(file, seal, n_pages)
    while suspects:
        logged = committed_pages(path)  # before the seal: see the order in the module's text
        suspects = [page for page in suspects if page not in logged]
        newer = load(path)
        if newer is None or newer == seal:
            break
        seal = newer
        suspects = [page for page in suspects if seal.is_broken(file, page)]
    return suspects


def _changed(file: MainFile, seal: Seal, n_pages: int) -> list[int]:
    """The first `n_pages` in one pass: those that are broken."""
    sums, size, crc32 = seal.sums, seal.page_size, zlib.crc32
    n_known = min(n_pages, len(sums))
    found = []
    for first in range(0, n_known, _BLOCK_PAGES):
        block = memoryview(file.read(_BLOCK_PAGES * size, first * size))
        for page in range(first, min(first + _BLOCK_PAGES, n_known)):
            at = (page - first) * size
            if crc32(block[at : at + size]) != sums[page]:
                found.append(page)
    return found + list(range(n_known, n_pages))


def _path(path: Path) -> Path:
    return path.with_name(path.name + SUFFIX)
