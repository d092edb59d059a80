"""llama.cpp's side, run by the Python of its own environment (benchmarks/peers.py).

Through the low-level calls, so that neither sampling nor Python objects per logit cost it anything.
Weights are mapped and repacked as llama.cpp does by default.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from benchmarks.side import Side


class Llama(Side):
    """The model and context that this process measures."""

    def load(
        self,
        path: str,
        threads: int,
        context: int = 512,
        flash_attention: bool | None = None,
        beams: int = 1,
        **_: Any,
    ) -> dict[str, Any]:
        """flash_attention None is llama.cpp's default. Also the bytes of its weights."""
        started = time.perf_counter()
        import llama_cpp  # type: ignore[import-not-found]

        imported = time.perf_counter()
        self._c = c = llama_cpp.llama_cpp
        c.llama_backend_init()
        self._model = c.llama_model_load_from_file(path.encode(), c.llama_model_default_params())
        if not self._model:
            raise ValueError(f"llama.cpp cannot load {path}")
        params = c.llama_context_default_params()
        params.n_ctx = params.n_batch = context
        params.n_threads = params.n_threads_batch = threads
        # one buffer for all beams, as llama.cpp advises for sequences that share a prefix
        params.n_seq_max, params.kv_unified = beams, True
        if flash_attention is not None:
            enabled, disabled = c.LLAMA_FLASH_ATTN_TYPE_ENABLED, c.LLAMA_FLASH_ATTN_TYPE_DISABLED
            params.flash_attn_type = enabled if flash_attention else disabled
        self._context = c.llama_init_from_model(self._model, params)
        if not self._context:
            raise ValueError(f"llama.cpp cannot make a context of {context} tokens for {path}")
        self._memory = c.llama_get_memory(self._context)
        self._n_past = 0
        loaded = time.perf_counter()
        self._run([0])
        ready = time.perf_counter()
        return {
            "import_s": imported - started,
            "load_s": loaded - imported,
            "first_token_s": ready - loaded,
            "n_bytes": c.llama_model_size(self._model),
        }

    def logits(self, token_ids: list[int], into: str) -> dict[str, Any]:
        """All positions in one batch, as llama.cpp's own perplexity tool does."""
        import numpy as np

        c, n = self._c, len(token_ids)
        self._truncate(0)
        self._run_all(token_ids)
        vocab_size = c.llama_vocab_n_tokens(c.llama_model_get_vocab(self._model))
        np.save(into, np.ctypeslib.as_array(c.llama_get_logits(self._context), (n, vocab_size)))
        return {}

    def tokens(self, text: str) -> dict[str, Any]:
        """Token ids of a text in which spellings of special tokens are these."""
        c, data = self._c, text.encode()
        vocab = c.llama_model_get_vocab(self._model)
        out = (c.llama_token * (len(data) + 8))()
        n = c.llama_tokenize(vocab, data, len(data), out, len(out), False, True)
        return {"token_ids": list(out[:n])}

    def _run(self, token_ids: list[int]) -> None:
        tokens = (self._c.llama_token * len(token_ids))(*token_ids)
        self._decode(self._c.llama_batch_get_one(tokens, len(tokens)))
        self._n_past += len(token_ids)

    def _run_all(self, token_ids: list[int]) -> None:
        first = self._n_past
        self._run_rows([(token_id, first + i, 0) for i, token_id in enumerate(token_ids)])
        self._n_past += len(token_ids)

    def _run_rows(self, rows: Sequence[tuple[int, int, int]]) -> None:
        """(token, position, beam) of each row, with the logits after each."""
        batch = self._c.llama_batch_init(len(rows), 0, 1)
        batch.n_tokens = len(rows)
        for i, (token_id, position, beam) in enumerate(rows):
            batch.token[i], batch.pos[i] = token_id, position
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, beam
            batch.logits[i] = 1
        self._decode(batch)
        self._c.llama_batch_free(batch)

    def _decode(self, batch: Any) -> None:
        code = self._c.llama_decode(self._context, batch)
        if code:
            raise ValueError(f"llama_decode gave {code}")
        self._c.llama_synchronize(self._context)

    @contextmanager
    def _fork(self, width: int) -> Iterator[Callable[[list[int]], None]]:
        for beam in range(1, width):
            self._c.llama_memory_seq_cp(self._memory, 0, beam, -1, -1)

        def step(token_ids: list[int]) -> None:
            self._run_rows([(token_id, self._n_past, i) for i, token_id in enumerate(token_ids)])
            self._n_past += 1

        yield step
        for beam in range(1, width):
            self._c.llama_memory_seq_rm(self._memory, beam, -1, -1)

    def _truncate(self, position: int) -> int:
        if position < self._n_past:
            self._c.llama_memory_seq_rm(self._memory, 0, position, -1)
            self._n_past = position
        return self._n_past


if __name__ == "__main__":
    Llama().serve("tokens")
