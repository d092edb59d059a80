"""The one place that holds Numba's flags, and where compiled kernels are cached.

Numba's cache is keyed on the file of the *calling* function only: an edit in an imported file would
be answered with stale machine code. So the cache folder's name is a hash of every kernel source.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from functools import partial
from pathlib import Path

import numba
from numba.extending import register_jitable

from engine.cache_dir import cache_dir

_ENGINE = Path(__file__).parents[1]


def _source_hash() -> str:
    """SHA-256 over all files that may hold Numba code, and Numba's version."""
    digest = hashlib.sha256(numba.__version__.encode())
    folders = ("kernels", "formats", "kv_formats", "sparse_formats", "training/kernels")
    for folder in folders:
        for path in sorted((_ENGINE / folder).glob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return os.access(folder, os.W_OK)
    except OSError:
        return False


def _kernel_cache() -> Path:
    """Our cache folder, or, in a read-only home, one that lasts as long as the machine's /tmp."""
    folder = cache_dir() / "numba" / _source_hash()
    if _writable(folder):
        return folder
    return Path(tempfile.gettempdir()) / f"sparsechat-{os.getuid() if hasattr(os, 'getuid') else 0}"


# must be set before the first decorator below runs: Numba picks the place of its cache then
KERNEL_CACHE = os.environ.get("NUMBA_CACHE_DIR") or str(_kernel_cache())
numba.config.CACHE_DIR = KERNEL_CACHE


def is_compiled() -> bool:
    """Whether an earlier start left compiled kernels for these sources."""
    return any(Path(KERNEL_CACHE).glob("**/*.nbc"))


# No fastmath: a token's sums are made in the same order in a batch and alone, on one thread and on
# several, so that prompts, decoding, beams and re-used caches agree bit for bit. What may be
# reordered says so where it stands (simd.sum_lanes).
# No _nrt: who calls owns the arrays, no kernel makes any. Counting their owners wherever a tuple of
# them is handed on took 0.4 ms a token, on two threads a tenth of it (SmolLM2-135M, AVX2).
kernel = partial(numba.njit, nogil=True, error_model="numpy", _nrt=False)

# A kernel that others take as an argument: Numba caches no caller of a dispatcher passed by value.
# LLVM finds these too long to be put into their callers where a vector takes two registers; a call
# a block is half the speed there.
block = register_jitable(forceinline=True)

# what Python or another kernel calls by itself; only these are worth a file in the cache
entry = partial(kernel, cache=True)
callback = partial(numba.cfunc, cache=True, error_model="numpy")  # called through its address
