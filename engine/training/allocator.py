"""Memory that a step frees and the next one takes again, kept in between.

glibc gives large blocks back to the system at once and gets them back as fresh pages, which the
system clears: at 4.5 GB/s that costs more than the arithmetic on them. A step of training allocates
the same sizes over and over. What is not taken again is given up: oneDNN would keep code and
scratch for 1,024 shapes of products, gigabytes, where a step has a few dozen and each batch brings
new ones.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # of mallopt(3)
_DEFAULTS = {_TRIM_THRESHOLD: 128 << 10, _TOP_PAD: 128 << 10, _MMAP_MAX: 65536}
_SHAPES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")  # read before the first product
_KEEP = {_TRIM_THRESHOLD: (1 << 31) - 1, _TOP_PAD: 64 << 20, _MMAP_MAX: 0}


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """In a `with` block nothing goes back to the system; at its end everything free does.

    From the first one on few shapes are kept, unless the environment says how many.
    """
    os.environ.setdefault(*_SHAPES)
    library = _glibc()
    if library is None:
        yield
        return
    for option, value in _KEEP.items():
        library.mallopt(option, value)
    try:
        yield
    finally:
        for option, value in _DEFAULTS.items():
            library.mallopt(option, value)
        library.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    """The C library where it has mallopt and malloc_trim, which only glibc has."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None
