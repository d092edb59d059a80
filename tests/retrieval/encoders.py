"""Encoders without weights: what tests use in place of MiniLM, which takes seconds to import."""

from __future__ import annotations

import re
import threading
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_WORD = re.compile(r"\w+")


class HashingEncoder:
    """A bag of words, each hashed to one of `dimension` signed places; the same in every process.

    Texts that share words have a high cosine, texts without common words one near 0.
    `encoded` keeps every text ever encoded, in order, so that tests can count encodings.
    """

    def __init__(self, dimension: int = 64, name: str = "hashing") -> None:
        self.dimension = dimension
        self.encoder_id = f"{name}-{dimension}"
        self.encoded: list[str] = []

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(len(texts), dimension) float32, each row of length 1."""
        self.encoded.extend(texts)
        out = np.zeros((len(texts), self.dimension), np.float32)
        for row, text in zip(out, texts, strict=True):
            for word in _WORD.findall(text.casefold()):
                code = zlib.crc32(word.encode())
                row[code % self.dimension] += 1.0 if code & 0x10000 else -1.0
            if not row.any():  # no words, or words that cancel out
                row[0] = 1.0
        out /= np.linalg.norm(out, axis=1, keepdims=True)
        return out


class FailingEncoder(HashingEncoder):
    """Encodes `n_texts` texts, then raises `error` (a kill, a full disk, an interrupt)."""

    def __init__(self, n_texts: int, error: BaseException, dimension: int = 64) -> None:
        super().__init__(dimension)
        self._left = n_texts
        self._error = error

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """As HashingEncoder, until the texts are used up."""
        if len(texts) > self._left:
            raise self._error
        self._left -= len(texts)
        return super().encode(texts)


class BlockingEncoder(HashingEncoder):
    """Waits for `release` before it encodes; `waiting` is set when somebody does."""

    def __init__(self, dimension: int = 64) -> None:
        super().__init__(dimension)
        self.waiting = threading.Event()
        self.release = threading.Event()

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """As HashingEncoder, after `release.set()`."""
        self.waiting.set()
        if not self.release.wait(timeout=60):
            raise TimeoutError("nobody released the encoder")
        return super().encode(texts)
