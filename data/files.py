"""Files that are either whole or absent: private folders, atomic JSON, hashes, room on the disk."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

CHUNK = 1 << 20
# "no space" and "over quota" (which Windows does not know)
FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}


class DiskFullError(OSError):
    """There is no room; the message says how many bytes are missing and where."""


def private_folder(path: Path) -> Path:
    """Create `path` and its missing parents with mode 0700 and return it; OSError in one line."""
    try:
        for folder in reversed([path, *path.parents]):
            if not folder.exists():
                folder.mkdir(mode=0o700, exist_ok=True)
        if not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise type(error)(
            f"cannot write to the folder {path}: {error.strerror}; "
            "set SPARSECHAT_HOME to a folder that can be written"
        ) from error
    return path


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` so that a reader sees the old file or the new one, never a piece."""
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(value, file, indent=2, ensure_ascii=False)
            file.write("\n")
            sync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(path.parent)


def sync(descriptor: int) -> None:
    """fsync that tolerates file systems without it (some network mounts answer EINVAL)."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` survive a power cut, where the system can do that."""
    with suppress(OSError):  # Windows cannot open folders; the rename itself is done either way
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sha256_of(path: Path, on_bytes: Callable[[int], None] | None = None) -> str:
    """The file's SHA-256 in hex; `on_bytes` hears how many bytes have been read so far."""
    digest, done = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(CHUNK):
            digest.update(block)
            done += len(block)
            if on_bytes:
                on_bytes(done)
    return digest.hexdigest()


def require_space(folder: Path, n_bytes: int) -> None:
    """DiskFullError when the file system of `folder` has less than `n_bytes` left."""
    free = shutil.disk_usage(folder).free
    if n_bytes > free:
        raise DiskFullError(_no_room(folder, n_bytes - free))


@contextmanager
def room(folder: Path, missing: Callable[[], int]) -> Iterator[None]:
    """Turn "disk full" from writes inside the block into a DiskFullError.

    `missing` says how many bytes were still to be written when it happened.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise DiskFullError(_no_room(folder, missing())) from error


def _no_room(folder: Path, n_bytes: int) -> str:
    return (
        f"the disk is full: {n_bytes:,} more bytes are needed in {folder}; "
        "free them, or set SPARSECHAT_HOME to a folder on another disk"
    )


def delete(*paths: Path) -> None:
    """Delete the files that exist."""
    for path in paths:
        with suppress(FileNotFoundError):
            path.unlink()


def megabytes(n_bytes: int) -> str:
    """For people: "98.4 MB" (powers of ten, as download pages count)."""
    if n_bytes >= 10**9:
        return f"{n_bytes / 1e9:.2f} GB"
    return f"{n_bytes / 1e6:.1f} MB" if n_bytes >= 10**5 else f"{n_bytes / 1e3:.1f} kB"
