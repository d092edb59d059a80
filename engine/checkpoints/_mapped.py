"""Files mapped into memory, and giving that memory back."""

from __future__ import annotations

import mmap
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt


def map_file(path: Path) -> mmap.mmap:
    """A file's bytes, read-only; ValueError when it is empty."""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def release(data: npt.NDArray[np.uint8]) -> None:
    """Give back the memory of a run of a mapped file's bytes; they are read again when asked for.

    Nothing happens to other arrays, and where the system cannot do it.
    """
    owner: object = data
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, memoryview):
        owner = owner.obj
    if not isinstance(owner, mmap.mmap) or not hasattr(mmap, "MADV_DONTNEED") or not data.size:
        return
    start = data.ctypes.data - np.frombuffer(owner, np.uint8).ctypes.data
    first = start // mmap.PAGESIZE * mmap.PAGESIZE
    with suppress(OSError):
        owner.madvise(mmap.MADV_DONTNEED, first, start + data.size - first)
