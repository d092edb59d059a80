"""sentence-transformers as an Encoder: its model and tokenizer, our batches.

Compute-bound. Its own `encode` takes a fixed number of texts a batch and lets all cores share each
matrix; here a batch is a number of tokens that fits the cache, made of texts of nearly one length,
and each core works on a batch of its own.
The only file of this folder that imports torch.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loguru import logger
from sentence_transformers import SentenceTransformer
from transformers.utils import logging

from .encoder import OnProgress, Vectors

# of 256 to 4,096 the fastest: activations of one layer of MiniLM (512 x 1,536 x 4 bytes) stay in
# a core's own cache
TOKENS_PER_BATCH = 512
# texts are padded to a multiple of it
STEP = 8
# tokenized, sorted and encoded together: bounds memory
TEXTS_AT_ONCE = 4096

TokenIds = list[list[int]]


class SentenceEncoder:
    """A sentence-transformers folder. Safe to call from several threads."""

    def __init__(self, folder: Path, encoder_id: str, n_threads: int | None = None) -> None:
        """n_threads: for many texts at once; None = the cores that this process may use."""
        with _quiet():
            self._model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
        self._model.eval()
        self.encoder_id = encoder_id
        self.n_threads = n_threads or _cores()
        self._tokenizing = threading.Lock()  # fast tokenizers panic when two threads set truncation
        self._is_plain = _is_plain(self._model)
        self._max_length = self._model.max_seq_length or 0  # of which there may be none
        self.dimension = int(self.encode(["dimension"]).shape[1])
        logger.info("loaded the encoder {} from {}", encoder_id, folder)

    def encode(self, texts: Sequence[str], on_progress: OnProgress | None = None) -> Vectors:
        """Passages as vectors: (len(texts), dimension) float32, each row of length 1."""
        return self._encode(texts, "document", on_progress)

    def encode_query(self, texts: Sequence[str]) -> Vectors:
        """Questions as vectors; differs from `encode` where the model has a prompt for them."""
        return self._encode(texts, "query", None)

    def _encode(self, texts: Sequence[str], kind: str, on_progress: OnProgress | None) -> Vectors:
        prompt = (self._model.prompts or {}).get(kind) or ""
        blocks = []
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            block = [prompt + _encodable(text) for text in texts[start : start + TEXTS_AT_ONCE]]
            counted = _counted(on_progress, start, len(texts))
            blocks.append(self._block(block, counted) if self._is_plain else self._foreign(block))
        if not blocks:
            return np.empty((0, self.dimension), np.float32)
        return np.concatenate(blocks) if len(blocks) > 1 else blocks[0]

    def _foreign(self, texts: list[str]) -> Vectors:
        """Models that are no transformer over tokens: the library's own way."""
        encoded = self._model.encode(texts, normalize_embeddings=True, show_progress_bar=False)
        return np.asarray(encoded, np.float32)

    def _block(self, texts: list[str], on_done: OnProgress) -> Vectors:
        ids = self._token_ids(texts)
        batches = list(batches_of([len(row) for row in ids]))
        parts: list[tuple[list[int], Vectors]]
        if len(batches) == 1 or self.n_threads == 1:
            parts = []
            for batch in batches:
                with _one_thread():
                    parts.append((batch, self._forward([ids[i] for i in batch])))
                on_done(sum(len(rows) for rows, _ in parts), len(texts))
        else:
            parts = self._in_threads(ids, batches, on_done)
        out = np.empty((len(texts), parts[0][1].shape[1]), np.float32)
        for batch, vectors in parts:
            out[batch] = vectors
        return out

    def _in_threads(
        self, ids: TokenIds, batches: list[list[int]], on_done: OnProgress
    ) -> list[tuple[list[int], Vectors]]:
        parts: list[tuple[list[int], Vectors]] = []
        done = 0
        # the initializer's 1 becomes torch's number for all new threads; _one_thread takes it back
        with (
            _one_thread(),
            ThreadPoolExecutor(self.n_threads, "encode", torch.set_num_threads, (1,)) as pool,
        ):
            futures: dict[Future[Vectors], list[int]] = {
                pool.submit(self._forward, [ids[i] for i in batch]): batch for batch in batches
            }
            try:
                for future in as_completed(futures):
                    parts.append((futures[future], future.result()))
                    done += len(futures[future])
                    on_done(done, len(ids))
            except BaseException:  # an interrupt waits for the running batches only
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return parts

    def _token_ids(self, texts: list[str]) -> TokenIds:
        with self._tokenizing:
            encoded = self._model.tokenizer(
                texts,
                truncation=True,
                max_length=self._model.max_seq_length,
                return_attention_mask=False,
                return_token_type_ids=False,
            )
        ids: TokenIds = encoded["input_ids"]
        return ids

    def _forward(self, ids: TokenIds) -> Vectors:
        tokenizer = self._model.tokenizer
        longest = max(map(len, ids))
        shape = len(ids), max(longest, min(padded_length(longest), self._max_length))
        padded = np.full(shape, tokenizer.pad_token_id or 0, np.int64)
        mask = np.zeros(shape, np.int64)
        for row, tokens in enumerate(ids):
            padded[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        features = {"input_ids": torch.from_numpy(padded), "attention_mask": torch.from_numpy(mask)}
        if "token_type_ids" in tokenizer.model_input_names:
            features["token_type_ids"] = torch.zeros_like(features["input_ids"])
        with torch.inference_mode():
            vectors = self._model(features)["sentence_embedding"].float()
            normal: Vectors = torch.nn.functional.normalize(vectors, dim=1).numpy()
        return normal


def batches_of(lengths: Sequence[int], budget: int = TOKENS_PER_BATCH) -> Iterator[list[int]]:
    """Indices of texts in batches: longest first, each padded batch within `budget` tokens.

    Texts of a batch are padded to the same length. A text longer than the budget is a batch of its
    own.
    """
    order = sorted(range(len(lengths)), key=lambda i: lengths[i], reverse=True)
    for length, alike in groupby(order, key=lambda i: padded_length(lengths[i])):
        indices = list(alike)
        n = max(1, budget // max(1, length))
        for start in range(0, len(indices), n):
            yield indices[start : start + n]


def padded_length(length: int) -> int:
    """How many tokens a text of `length` is padded to. It depends on the text alone, not on its
    company: so its vector has the same bits in whichever batch, or process, it is encoded."""
    return -(-length // STEP) * STEP


def _counted(on_progress: OnProgress | None, before: int, total: int) -> OnProgress:
    def on_done(done: int, _: int) -> None:
        if on_progress:
            on_progress(before + done, total)

    return on_done


def _encodable(text: str) -> str:
    """Without lone surrogates (undecodable file names), which tokenizers refuse."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _is_plain(model: Any) -> bool:
    """Whether `_token_ids` and `_forward` do what the library does for this model."""
    first = model[0]
    tokenizer: Any = getattr(first, "tokenizer", None)
    return (
        type(first).__name__ == "Transformer"
        and bool(getattr(tokenizer, "is_fast", False))
        and tokenizer.padding_side == "right"
        and not getattr(first, "do_lower_case", False)
    )


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return max(1, os.cpu_count() or 1)


@contextmanager
def _one_thread() -> Iterator[None]:
    """A short text is encoded by the calling thread alone.

    Two threads gain nothing on matrices this small (13 ms alone; 130 ms when another program holds
    the second core, because OpenMP's threads wait for each other at every layer).
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bar for a second's work: it would break into the user's line."""
    bars: Any = logging
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()
