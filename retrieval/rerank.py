"""An optional last judge: a model that reads the question and a passage together.

None is built in: such a model costs tens of milliseconds a passage on a CPU. Whoever has one (a
cross-encoder folder of sentence-transformers, say) passes it to `look_up`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np

from .passages import Hit

N_JUDGED = 20


class Reranker(Protocol):
    """What search calls between fusion and expansion."""

    def rerank(self, query: str, hits: Sequence[Hit]) -> list[Hit]:
        """The same hits, best first, with scores of their own between 0 and 1."""
        ...


class CrossEncoderReranker:
    """A sentence-transformers cross-encoder from a local folder; one output, read as a logit."""

    def __init__(self, folder: Path | str, n_judged: int = N_JUDGED) -> None:
        """n_judged: so many of the best are read; the others follow with the scores they had."""
        from sentence_transformers import CrossEncoder

        self._model = CrossEncoder(str(folder), device="cpu", local_files_only=True)
        self._n_judged = n_judged

    def rerank(self, query: str, hits: Sequence[Hit]) -> list[Hit]:
        """See Reranker. Hits that were not read stand behind those that were."""
        read, others = hits[: self._n_judged], hits[self._n_judged :]
        if not read:
            return list(hits)
        import torch

        pairs = [(query, f"{hit.chunk.title}: {hit.chunk.text}") for hit in read]
        logits = self._model.predict(
            pairs, show_progress_bar=False, activation_fn=torch.nn.Identity()
        )
        scores = 1 / (1 + np.exp(-np.asarray(logits, np.float64).reshape(len(read))))
        judged = [replace(hit, score=float(s)) for hit, s in zip(read, scores, strict=True)]
        judged.sort(key=lambda hit: -hit.score)
        least = judged[-1].score
        return judged + [replace(hit, score=min(hit.score, least)) for hit in others]
