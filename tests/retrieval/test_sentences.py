"""Batches of texts; the module imports torch, so what needs no model still is not free."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sentence_transformers")


@pytest.mark.slow
def test_batches_are_long_texts_first_and_within_the_budget(rng: np.random.Generator) -> None:
    from retrieval.sentences import batches_of, padded_length

    lengths = [*rng.integers(1, 300, 500).tolist(), 900]
    batches = list(batches_of(lengths, budget=512))
    assert sorted(i for batch in batches for i in batch) == list(range(501))
    for batch in batches:
        longest = max(lengths[i] for i in batch)
        assert len(batch) == 1 or len(batch) * longest <= 512
        assert len({padded_length(lengths[i]) for i in batch}) == 1
    firsts = [lengths[batch[0]] for batch in batches]
    assert firsts == sorted(firsts, reverse=True)
    assert list(batches_of([])) == []
