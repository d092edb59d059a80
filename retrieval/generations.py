"""Indexes derived from the database: immutable folders, published by one atomic replace.

    gen-000007/     an index and its manifest.json; never changed once it has this name
    CURRENT         names one of them, with the hash of its manifest
    gen-000008.tmp/ being built, or left by a build that was killed

A reader opens what CURRENT names and keeps it, with a shared lock, until it asks again. A
generation that nobody reads any more is deleted by the next build.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loguru import logger

from data import files

from . import manifest as manifests
from .damage import MARK, DamagedError, set_aside
from .manifest import Manifest
from .schema import row_crc

if TYPE_CHECKING:
    from .backends import Ids, Index, Vectors

CURRENT = "CURRENT"
# above this, a file that has size, time and inode as built is not hashed again in every process
LARGE = 1 << 30
_NAME = re.compile(r"gen-(\d{6,})")

_verified: dict[Path, tuple[int, int, int]] = {}  # file -> size, mtime_ns, inode when last hashed


class Generation:
    """An opened generation: an Index that also knows what it holds. Its lock goes with it."""

    def __init__(
        self, folder: Path, digest: str, manifest: Manifest, index: Index, lock: int | None
    ) -> None:
        self.folder, self.manifest = folder, manifest
        self.pointer = folder.name, digest
        self.last_chunk_id, self.count = manifest.last_chunk_id, manifest.count
        self._index = index
        self._unlock = weakref.finalize(self, _release, lock)

    @property
    def number(self) -> int:
        """As in the folder's name."""
        return _number(self.folder.name)

    def search(
        self,
        queries: Vectors,
        k: int,
        excluded: Ids | None = None,
        allowed: Ids | None = None,
    ) -> tuple[Ids, Vectors]:
        """See retrieval.backends.Index."""
        return self._index.search(queries, k, excluded, allowed)

    def close(self) -> None:
        """Give back files and memory; the folder may be deleted afterwards."""
        self._index.close()
        self._unlock()


def current(base: Path) -> str | None:
    """The name of the published generation; None when there is none. DamagedError."""
    pointer = pointer_of(base)
    return pointer[0] if pointer else None


def open_current(base: Path) -> Generation | None:
    """The published generation, every file verified; None when there is none.

    DamagedError names what is not as it was published; retrieval.damage.set_aside takes its path.
    """
    while True:
        pointer = pointer_of(base)
        if pointer is None:
            return None
        folder = base / pointer[0]
        try:
            return _open(folder, pointer[1])
        except (FileNotFoundError, DamagedError) as error:
            if pointer_of(base) != pointer:
                continue  # it was replaced, and deleted while we looked
            if isinstance(error, DamagedError):
                raise
            raise DamagedError(folder, f"{error.filename or error} is gone") from error


def publish(
    base: Path, build: Callable[[Path], Mapping[str, Any]], facts: Mapping[str, Any]
) -> Manifest:
    """Build a generation and make it the current one.

    build  writes an index into the folder it is given and returns what the manifest keeps
    facts  base_id, encoder_id, backend, last_chunk_id, commit, chunker
    The caller holds the base's lock. A kill leaves the current generation as it is.
    """
    name = f"gen-{max([0, *map(_number, _names(base))]) + 1:06d}"
    sweep(base)
    draft = base / f"{name}.tmp"
    draft.mkdir(mode=0o700)
    try:
        index = dict(build(draft))
        manifest = Manifest(
            dimension=int(index["dimension"]),
            metric=str(index["metric"]),
            count=int(index["count"]),
            files=manifests.described(draft),
            index=index,
            **facts,
        )
        manifests.write(draft, manifest)
        os.rename(draft, base / name)
    except BaseException:
        _delete(draft)
        raise
    files.sync_folder(base)
    digest = files.sha256_of(base / name / manifests.FILE)
    pointer = {"generation": name, "sha256": digest}
    files.write_json(base / CURRENT, {**pointer, "crc": row_crc(name, digest)})
    logger.info("published {} of {}: {:,} vectors", name, base.name, manifest.count)
    sweep(base)
    return manifest


def sweep(base: Path) -> None:
    """Delete drafts and generations that are neither current nor read. The caller holds the
    base's lock. What is set aside stays."""
    try:
        kept = current(base)
    except DamagedError:
        set_current_aside(base)
        kept = None
    for folder in base.glob("gen-*"):
        if folder.name == kept or MARK in folder.name or not folder.is_dir():
            continue
        if folder.name.endswith(".tmp") or _is_unread(folder):
            _delete(folder)


def discard_all(base: Path) -> None:
    """Delete what all generations, damaged ones too, have on servers: the base is being removed.
    The folders stay. What cannot be deleted is named in the log."""
    for folder in base.glob("gen-*"):
        _discard(folder)


def _delete(folder: Path) -> None:
    """A generation with what it has on a server. Where that does not answer, the folder stays,
    for the next sweep: nobody else knows what is to be deleted there."""
    if _discard(folder):
        shutil.rmtree(folder, ignore_errors=True)


def _discard(folder: Path) -> bool:
    from .backends import IndexUnavailableError, discard

    try:
        discard(folder)
    except (IndexUnavailableError, ValueError) as error:
        logger.warning("what {} has on a server stays there: {}", folder.name, error)
        return isinstance(error, ValueError)
    return True


def set_current_aside(base: Path) -> None:
    """Take the current generation out of use, keeping its files: it is damaged. The caller holds
    the base's lock."""
    try:
        name = current(base)
    except DamagedError:
        name = None
    moved = set_aside(base / name) if name else []
    if moved:
        with suppress(FileNotFoundError):
            os.replace(base / CURRENT, moved[0] / CURRENT)
    else:
        set_aside(base / CURRENT)


def verify(folder: Path, manifest: Manifest, always: bool = False) -> None:
    """Every file against its hash, once per process and change of the file, or `always`.

    DamagedError. Files over 1 GB are taken as they are while size, time and inode are as built.
    """
    present = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    if present - {manifests.FILE} != set(manifest.files):
        raise DamagedError(folder, f"its files are {', '.join(sorted(present))}")
    for name, built in manifest.files.items():
        path = folder / name
        stat = path.stat()
        stamp = stat.st_size, stat.st_mtime_ns, stat.st_ino
        if stat.st_size != built["size"]:
            raise DamagedError(folder, f"{name} has {stat.st_size:,} bytes, not {built['size']:,}")
        as_built = stamp == (built["size"], built["mtime_ns"], built["inode"])
        if not always and (_verified.get(path) == stamp or (as_built and stamp[0] > LARGE)):
            continue
        if files.sha256_of(path) != built["sha256"]:
            raise DamagedError(folder, f"{name} is not what was built (its SHA-256 differs)")
        _verified[path] = stamp


def _open(folder: Path, digest: str) -> Generation:
    from .backends import IndexFileError, backend

    lock = _lock_shared(folder)
    try:
        if files.sha256_of(folder / manifests.FILE) != digest:
            raise DamagedError(folder, f"{manifests.FILE} is not what was published")
        manifest = manifests.read(folder)
        verify(folder, manifest)
        index = backend(manifest.backend).open(folder, manifest.index)
    except (manifests.ManifestError, IndexFileError) as error:
        _release(lock)
        raise DamagedError(folder, str(error)) from error
    except BaseException:
        _release(lock)
        raise
    return Generation(folder, digest, manifest, index, lock)


def pointer_of(base: Path) -> tuple[str, str] | None:
    """(name, hash of the manifest) of the published generation; None when there is none."""
    path = base / CURRENT
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        name, digest = value["generation"], value["sha256"]
        if _NAME.fullmatch(name) and value["crc"] == row_crc(name, digest):
            return name, digest
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    raise DamagedError(path, "it names no generation")


def _number(name: str) -> int:
    match = _NAME.match(name)
    return int(match[1]) if match else 0


def _names(base: Path) -> list[str]:
    return [path.name for path in base.glob("gen-*")]


def _lock_shared(folder: Path) -> int | None:
    """Keep `sweep` from deleting it; on Windows, opened files do that by themselves."""
    if os.name == "nt":
        return None
    import fcntl

    descriptor = os.open(folder / manifests.FILE, os.O_RDONLY)
    with suppress(OSError):  # a file system without locks: a deleted file stays readable
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return descriptor


def _is_unread(folder: Path) -> bool:
    if os.name == "nt":
        try:  # fails while a file in it is open
            os.rename(folder, folder.with_name(f"{folder.name}.tmp"))
            _delete(folder.with_name(f"{folder.name}.tmp"))
        except OSError:
            pass
        return False
    import fcntl

    try:
        descriptor = os.open(folder / manifests.FILE, os.O_RDONLY)
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return True


def _release(lock: int | None) -> None:
    if lock is not None:
        os.close(lock)
