"""A kernel on all of torch's threads.

torch's own products run on a team of OpenMP whose threads look for more work for a while after
each. Another pool would fight with it for the cores, so kernels run on the same team, through the
entry that compilers call. Without that library (torch for macOS has another) threads of Python
serve.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.training.kernels.tasks import N_COUNTERS

Tensor = Any


def run(kernel: Any, n_items: int, *arguments: Tensor | int | float | None) -> None:
    """Call a task of engine/training/kernels; returns when all items are done.

    A tensor stands for its address, which its elements must follow as the kernel says; None for 0.
    """
    numbers = [_number(argument) for argument in arguments]
    block = (ctypes.c_int64 * (N_COUNTERS + len(numbers)))(0, n_items, 0, *numbers)
    threads = min(torch.get_num_threads(), n_items)
    if threads == 1:
        kernel.ctypes(ctypes.addressof(block))
    elif threads > 1:
        _start()(kernel, ctypes.addressof(block), threads)


def rows_per_item(n_rows: int) -> int:
    """A run of rows that is worth an item: a few items for each thread."""
    return max(1, min(32, -(-n_rows // (4 * int(torch.get_num_threads())))))


def _number(argument: Tensor | int | float | None) -> int:
    if argument is None:
        return 0
    if isinstance(argument, float):
        return int(np.float32(argument).view(np.uint32))
    if isinstance(argument, int):
        return argument
    return int(argument.data_ptr())


@cache
def _start() -> Callable[[Any, int, int], None]:
    """f(kernel, address of its block, threads)."""
    for library in sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*")):
        try:
            # torch has loaded this file, so that the process has it once
            parallel = ctypes.CDLL(str(library)).GOMP_parallel
        except (OSError, AttributeError):
            continue
        parallel.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
        parallel.restype = None
        return lambda kernel, block, threads: parallel(kernel.address, block, threads, 0)
    return _start_on_python_threads


def _start_on_python_threads(kernel: Any, block: int, threads: int) -> None:
    others = [_pool(threads - 1).submit(kernel.ctypes, block) for _ in range(threads - 1)]
    kernel.ctypes(block)
    wait(others)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "training")
