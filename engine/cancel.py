"""Ending a call of the decoder from outside: a flag that its kernels poll."""

from __future__ import annotations

import numpy as np


class Cancelled(Exception):
    """The call was cancelled; the cache holds what was complete before."""


class Cancel:
    """A flag that kernels poll. Setting it is safe in a signal handler and from any thread."""

    def __init__(self) -> None:
        self.cell = np.zeros(1, np.int64)

    def set(self) -> None:
        """Ask running and future calls to end."""
        self.cell[0] = 1

    def clear(self) -> None:
        """Allow calls again."""
        self.cell[0] = 0

    def is_set(self) -> bool:
        """Whether calls are asked to end."""
        return bool(self.cell[0])
