"""Our side: the engine without text and sampling, in a process of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.machine import memory
from benchmarks.side import Side


class Engine(Side):
    """The model that this process measures."""

    def load(self, path: str, threads: int, **options: Any) -> dict[str, Any]:
        """Also a token's work: bytes of weights, of the cache per position, and multiplications.

        options   of engine.load: weight_format, kv_cache
        """
        started = time.perf_counter()
        import engine

        stages: set[str] = set()
        imported = time.perf_counter()
        self._model = engine.load(
            Path(path),
            threads=threads,
            on_progress=lambda stage, fraction: stages.add(stage),
            **options,
        )
        loaded = time.perf_counter()
        self._cache = self._model.decoder.new_cache()
        self._run([0])
        ready = time.perf_counter()
        config, weights = self._model.config, self._model.weights
        # of an embedding that is not the head too, a token reads one row
        unread = 0 if config.tied_head else weights.matrices["embedding"].data.nbytes
        head = weights.matrices["embedding" if config.tied_head else "head"]
        return {
            "import_s": imported - started,
            "load_s": loaded - imported,
            "first_token_s": ready - loaded,
            "packed_weights": "packing weights" in stages,
            "vocab_size": config.vocab_size,
            "multiplications": sum(  # of a prompt's token: only the last one meets the head
                weight.n_out * weight.n_in
                for name, weight in weights.matrices.items()
                if name.startswith("layers.")
            ),
            "head_multiplications": head.n_out * head.n_in,
            "bytes_per_token": self._model.n_bytes - unread,
            "bytes_per_position": self._cache.bytes_per_token,
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

    def calibrate(self) -> dict[str, Any]:
        """Measure what sparsity needs: seconds; the peak of memory before and after, in bytes."""
        import engine

        before = memory()
        started = time.perf_counter()
        engine.calibrate(self._model)
        seconds = time.perf_counter() - started
        return {
            "seconds": seconds,
            "before": before and before["peak"],
            "peak": (after := memory()) and after["peak"],
            "model": self._model.n_bytes,
        }

    def int8_peak(self, threads: int) -> dict[str, Any]:
        """Multiplications of bytes that this processor does, in billions a second."""
        from benchmarks.peak import int8_peak

        return {"g_s": int8_peak(threads)}

    def _run(self, token_ids: list[int]) -> None:
        from engine.generate import coarse_tokens

        coarse = coarse_tokens(len(token_ids))  # as a prompt is read, or 0
        self._model.decoder.extend(self._cache, token_ids, coarse=coarse)

    def _run_all(self, token_ids: list[int]) -> None:
        self._model.decoder.extend(self._cache, token_ids, all_logits=True)

    @contextmanager
    def _fork(self, width: int) -> Iterator[Callable[[list[int]], None]]:
        from engine.decoder import Branches

        first = len(self._cache.token_ids)
        paths: list[list[int]] = [[] for _ in range(width)]

        def step(token_ids: list[int]) -> None:
            start = first + width * len(paths[0])
            slots = range(start, start + width)
            for path, slot in zip(paths, slots, strict=True):
                path.append(slot)
            self._model.decoder.branch(self._cache, token_ids, Branches(slots, paths))

        yield step

    def _truncate(self, position: int) -> int:
        self._cache.truncate(position)
        return len(self._cache.token_ids)


if __name__ == "__main__":
    Engine().serve("encode", "calibrate", "int8_peak")
