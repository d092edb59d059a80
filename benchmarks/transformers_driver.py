"""transformers' side: a GGUF file's weights dequantised to float32, the reference of quality."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from benchmarks.side import Side


class Transformers(Side):
    """The model that this process measures."""

    def load(self, path: str, threads: int, **_: Any) -> dict[str, Any]:
        """SmolLM2-135M only: the very model that the parity tests compare with."""
        started = time.perf_counter()
        import torch

        from tests.parity.smollm2 import reference_model

        imported = time.perf_counter()
        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        self._torch = torch
        self._model: Any = reference_model(Path(path))
        self._past: Any = None
        self._n_past = 0
        loaded = time.perf_counter()
        self._run([0])
        ready = time.perf_counter()
        return {
            "import_s": imported - started,
            "load_s": loaded - imported,
            "first_token_s": ready - loaded,
        }

    def logits(self, token_ids: list[int], into: str) -> dict[str, Any]:
        """All positions at once."""
        import numpy as np

        np.save(into, self._model(self._torch.tensor([token_ids])).logits[0].numpy())
        return {}

    def _run(self, token_ids: list[int]) -> None:
        output = self._model(
            self._torch.tensor([token_ids]), past_key_values=self._past, use_cache=True,
            logits_to_keep=1,
        )  # fmt: skip
        self._past = output.past_key_values
        self._n_past += len(token_ids)

    def _truncate(self, position: int) -> int:
        if position < self._n_past:
            self._past.crop(position)
            self._n_past = position
        return self._n_past


if __name__ == "__main__":
    Transformers().serve()
