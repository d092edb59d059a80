"""Our side: the engine without text and sampling, in a process of its own."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from benchmarks.side import Side


class Engine(Side):
    """The model that this process measures."""

    def load(
        self, path: str, threads: int, weight_format: str | None = None, **_: Any
    ) -> dict[str, Any]:
        """Also a token's work: bytes of weights, of the cache per position, and multiplications."""
        started = time.perf_counter()
        import engine

        imported = time.perf_counter()
        self._model = engine.load(Path(path), weight_format, threads=threads)
        loaded = time.perf_counter()
        self._cache = self._model.decoder.new_cache()
        self._run([0])
        ready = time.perf_counter()
        config, weights, cache = self._model.config, self._model.weights, self._cache
        # of an embedding that is not the head too, a token reads one row
        unread = 0 if config.tied_head else weights.matrices["embedding"].data.nbytes
        return {
            "import_s": imported - started,
            "load_s": loaded - imported,
            "first_token_s": ready - loaded,
            "vocab_size": config.vocab_size,
            "multiplications": sum(  # of a prompt's token: only the last one meets the head
                weight.n_out * weight.n_in
                for name, weight in weights.matrices.items()
                if name.startswith("layers.")
            ),
            "bytes_per_token": self._model.n_bytes - unread,
            "bytes_per_position": (cache.keys.nbytes + cache.values.nbytes) // cache.capacity,
            "weight_format": self._model.weight_format,
        }

    def logits(self, token_ids: list[int], into: str) -> dict[str, Any]:
        """Teacher-forced, as model.logits gives them."""
        import numpy as np

        np.save(into, self._model.logits(token_ids))
        return {}

    def encode(self, text: str) -> dict[str, Any]:
        """Token ids of plain text."""
        if self._model.tokenizer is None:
            raise ValueError("the model has no tokenizer, and quality is measured on text")
        return {"token_ids": self._model.tokenizer.encode(text)}

    def _run(self, token_ids: list[int]) -> None:
        self._model.decoder.extend(self._cache, token_ids)

    def _truncate(self, position: int) -> int:
        self._cache.truncate(position)
        return len(self._cache.token_ids)


if __name__ == "__main__":
    Engine().serve("encode")
